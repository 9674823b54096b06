"""`hms-dist estimate`: figures follow from the measured parts; a set gives its own disk; each line names its source."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.canvas.compose import Canvas
from hms_dist.cli import main
from hms_dist.commands import estimate
from hms_dist.commands.estimate import Estimate, fitting_recipe, num_epochs
from hms_dist.commands.measure import StepCost
from hms_dist.config.load import load
from hms_dist.model.build import build
from hms_dist.rendering.render import RenderConfig
from hms_dist.shards.index import open_set

COST = StepCost(
    device="cpu", num_rows=8, seconds=4.0, seconds_predicted=1.0, peak_bytes=0, fixed_bytes=10**9, kept_bytes=8 * 10**8
)


@pytest.fixture
def lines(capsys):
    """Runs the command, and returns its lines by their names."""

    def call(*words: object) -> dict[str, dict[str, object]]:
        assert main(["estimate", *map(str, words), "--json"]) == 0
        AcceleratorState._reset_state(reset_partial_state=True)
        return {line["what"]: line for line in json.loads(capsys.readouterr().out)}

    return call


def test_a_recipe_is_rendered_and_trained_here(lines, tmp_path):
    found = lines("--config", "public_baseline", "--config", "small", "--rows", 10_000, "--out", tmp_path)
    assert not list(tmp_path.iterdir())
    assert 10 < found["disk of the shard set"]["value"] / 10_000 * 1e9 / 1000 < 1000  # kB per row
    assert found["rendering, on one core"]["value"] > 0
    words = ["--config", "public_baseline", "--config", "small", "--rows", "1"]
    model = build(load(Estimate, words).model, 0, 6)
    weights = sum(one.numel() * 4 for one in model.parameters())
    memory = found["memory of each GPU"]
    assert memory["source"].startswith(
        f"computed: {4 * weights / 1e9:.2f} GB" if not torch.cuda.is_available() else "measured"
    )
    assert memory["value"] * 1e9 > 4 * weights
    assert all(line["source"].startswith(("measured here", "computed", "stated")) for line in found.values())
    assert "training on an H200" not in found  # another network


def test_a_shard_set_is_measured_with_its_own_rows(lines, small_file, shard_set, tmp_path):
    found = lines("--config", small_file, "--shards", shard_set, "--rows", 1000, "--out", tmp_path)
    manifest, index = open_set(shard_set)
    size = sum(path.stat().st_size for path in [*shard_set.glob("*.tar"), shard_set / "index.parquet"])
    assert len(index) == manifest.num_samples
    assert found["disk of the shard set"]["value"] == pytest.approx(size / len(index) * 1000 / 1e9)
    assert not any(name.startswith("rendering") for name in found)


def test_hours_and_memory_follow_from_the_parts(monkeypatch, lines, shard_set, tmp_path):
    monkeypatch.setattr(estimate, "step_cost", lambda config: COST)
    words = ["--config", "public_baseline", "--shards", shard_set, "--rows", 3600, "--out", tmp_path]
    found = lines(*words)
    # 4 of 5 folds train, at half a second per row, and one is predicted at an eighth of a second per row, in 4 epochs.
    assert found["training, 4 epochs"]["value"] == pytest.approx(4 * (0.8 * 0.5 + 0.2 / 8))
    assert found["prediction, no mirror images"]["value"] == pytest.approx(1 / 8)
    assert found["memory of each GPU"]["value"] == pytest.approx(1 + 32 * 0.1)
    assert lines(*words, "--num_gpus", 2)["memory of each GPU"]["value"] == pytest.approx(1 + 16 * 0.1)
    assert lines(*words, "--fold", "none")["training, 4 epochs"]["value"] == pytest.approx(4 * 0.5)
    assert found["training on an H200"]["value"] == pytest.approx(4 * 3600 / 1241.6 / 3600)
    assert found["memory of an H200"]["source"].startswith("stated: docs/performance.md")


@pytest.mark.parametrize("name", ["sixteenth_place", "seed_003"])
def test_the_render_recipe_of_a_canvas_is_found(name):
    command = load(Estimate, ["--config", name, "--rows", "1"])
    found, own = fitting_recipe(command), load(RenderConfig, ["--config", name])
    assert len(found.panels) <= len(own.panels)
    specs = {panel: one.spec for panel, one in found.panels.items()}
    assert set(Canvas(command.canvas, specs).panels) <= set(specs)


def test_a_missing_folder_for_temporary_files(tmp_path, capsys):
    assert main(["estimate", "--config", "public_baseline", "--rows", "9", "--out", str(tmp_path / "none")]) == 2
    line = f"hms-dist estimate: out: expected a folder for temporary files, found '{tmp_path}/none'; create it\n"
    assert capsys.readouterr().err == line


def test_epochs_of_stages_are_added():
    command = load(Estimate, ["--config", "seed_000", "--rows", "1"])
    assert num_epochs(command) == sum(stage.epochs or command.epochs for stage in command.stages) > command.epochs
