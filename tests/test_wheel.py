"""The wheel: installed away from the checkout, it renders and trains by the names of its recipes."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hms_dist.config.recipes import folders, names

REPOSITORY = Path(__file__).parents[1]
PARTS = ("hms_dist", "configs", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
        copy(REPOSITORY / part, source / part)
    pip("wheel", "--no-build-isolation", "--wheel-dir", made, source)
    (found,) = made.iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with what the wheel installs; dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", folder, wheel)
    return folder


@pytest.fixture
def call(installed, tmp_path):
    """Runs the installed command in an empty folder; what it printed."""

    def run(*words: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        command = [installed / "bin/hms-dist", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def pip(subcommand: str, *words: object) -> None:
    command = [sys.executable, "-m", "pip", subcommand, "--no-deps", "--no-index", "--quiet", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.slow
def test_it_holds_every_recipe_and_nothing_of_the_tests(wheel):
    found = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    recipes = {f"{path.parent.name}/{path.stem}" for path in found if path.suffix == ".yaml"}
    assert recipes == {f"{folder}/{name}" for folder in folders() for name in names(folder)}
    assert {path.parts[0].partition("-")[0] for path in found} == {"hms_dist"}
    package = REPOSITORY / "hms_dist"
    files = {path.relative_to(REPOSITORY) for path in package.rglob("*") if path.is_file() and path.suffix != ".md"}
    assert {path for path in files if "__pycache__" not in path.parts} <= set(found)


@pytest.mark.slow
def test_it_renders_and_trains_by_name_in_an_empty_folder(call, installed, recordings, tmp_path):
    assert "\n  train " in call("--help")
    path = call("recipes", "accelerate/cpu2").strip()
    assert Path(path).is_relative_to(installed)
    rows = (recordings / "train.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join([rows[0], *rows[1::6]]))
    call("render", "--data", recordings, "--table", "few.csv", "--config", "public_baseline", "--out", "set")
    recipe = {"name": "a", "configs": ["public_baseline", "small"], "options": {"epochs": 1, "num_folds": 2}}
    call("grid", "--recipes", json.dumps([recipe]), "--shards", "set", "--out", "run", "--folds", "[0]")
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "finished"
    command = json.loads((tmp_path / "run/environment.json").read_text())["command"]
    assert command[:4] == [str(installed / "hms_dist/__main__.py"), "train", "--config", "public_baseline"]
