"""Recipes: every one of configs/ is found by its name from any folder; a path stays a path."""

import importlib
from pathlib import Path

import pytest

from hms_dist.canvas.augment import AugmentConfig
from hms_dist.canvas.options import CanvasConfig
from hms_dist.cli import main
from hms_dist.commands.table import COMMANDS
from hms_dist.config.load import load
from hms_dist.config.recipes import ROOT, folder_of, folders, names, portable
from hms_dist.core.errors import UserError
from hms_dist.grid.ablation import Ablation
from hms_dist.grid.grid import Grid
from hms_dist.train.settings import TrainConfig

GIVEN = {
    "train": ["--shards", "s", "--out", "o"],
    "render": ["--data", "d", "--out", "o"],
    "grid": ["--shards", "s"],
    "ablation": ["--shards", "s", "--out", "o"],
    "search": ["--shards", "s", "--out", "o"],
    "pipeline": ["--data", "d", "--out", "o"],
    "sbatch": ["--job", "train"],
}
"""Command -> its required options besides the recipe."""


def options_of(command):
    module, name, _ = COMMANDS[command]
    return getattr(importlib.import_module(module), name)


CLASSES = {
    **{
        folder_of(options_of(command)): (options_of(command), given)
        for command, given in GIVEN.items()
        if command != "ablation"
    },
    "canvas": (CanvasConfig, []),
    "augment": (AugmentConfig, []),
}
MERGED = ("small", "fine_tune", "rfcx_tp_only")
"""Recipes that are merged after another one."""
RECIPES = [(folder, name) for folder in CLASSES for name in names(folder)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_folder_has_its_class_but_that_of_the_launcher():
    assert set(CLASSES) == set(folders()) - {"accelerate"}


@pytest.mark.parametrize(("folder", "name"), RECIPES, ids=["/".join(recipe) for recipe in RECIPES])
def test_every_recipe_is_found_from_any_folder_with_all_that_it_names(folder, name):
    cls, given = CLASSES[folder]
    if name == "seed_001_ablation":
        cls, given = Ablation, GIVEN["ablation"]
    before = ["--config", "demo"] if name in MERGED else []
    found = load(cls, [*before, "--config", name, *given])
    if isinstance(found, Grid):
        named = {str(path) for recipe in found.recipes for path in recipe.configs}
    else:
        named = {str(path) for path in getattr(found, "configs", ())}
        assert {str(path) for path in getattr(found, "canvases", ())} <= {*names("canvas")}
    assert named <= {*names("train")}


def test_names_stand_for_files_within_options_and_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("canvas: seed_003\naugment: peers\n")
    config = load(TrainConfig, ["--config", "mine.yaml", *GIVEN["train"]])
    assert config.canvas == load(CanvasConfig, ["--config", "seed_003"])
    assert config.augment == load(AugmentConfig, ["--config", "peers"])
    other = load(TrainConfig, ["--config", "mine.yaml", "--canvas", "demo", *GIVEN["train"]])
    assert other.canvas == load(CanvasConfig, ["--config", "demo"])


def test_what_has_a_slash_or_an_ending_is_a_path(tmp_path):
    for number, name in enumerate(("demo.yaml", "demo")):
        placement = "{panel: traces, top: 0, left: 0, height: 1, width: 8}"
        (tmp_path / name).write_text(f"height: {8 + number}\nwidth: 8\nplacements: [{placement}]\n")
    assert load(CanvasConfig, ["--config", "demo.yaml"]).height == 8
    assert load(CanvasConfig, ["--config", "./demo"]).height == 9
    assert load(CanvasConfig, ["--config", "demo"]) == load(CanvasConfig, ["--config", str(ROOT / "canvas/demo.yaml")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config", "dem"],
            r"^--config: no recipe 'dem' in configs/train; did you mean demo\? one of: demo, .*\.yaml$",
        ),
        (["--config", "demo", "--canvas", "x"], "^--canvas: no recipe 'x' in configs/canvas; one of: audio_log_mel, "),
        (
            ["--config", "mine.yaml"],
            "^mine.yaml: no recipe 'y' in configs/augment; one of: audio, peers, rfcx, sixteenth_place; ",
        ),
        (["--config", "./demo.yaml"], r"^demo.yaml: cannot read this configuration file"),
        (["--config", ".."], r"no recipe '\.\.' in configs/train"),
    ],
)
def test_a_name_that_is_no_recipes_is_refused(words, message, tmp_path):
    (tmp_path / "mine.yaml").write_text("augment: y\n")
    with pytest.raises(UserError, match=message):
        load(TrainConfig, [*words, *GIVEN["train"]])


def test_the_command_lists_all_and_prints_the_path_of_one(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == [f"{folder}/{name}" for folder in folders() for name in names(folder)]
    for name in listed:
        assert main(["recipes", name]) == 0
        assert Path(capsys.readouterr().out.strip()).is_file()


def test_a_recipe_is_compared_by_its_place_among_them(tmp_path):
    assert portable(ROOT / "train/demo.yaml") == "configs/train/demo.yaml"
    assert portable(tmp_path / "demo.yaml") == str(tmp_path / "demo.yaml")
