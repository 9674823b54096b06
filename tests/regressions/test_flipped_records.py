"""A flipped bit in a run's records for later commands is rejected, naming the file."""

import shutil

import pytest

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.report.status import look
from hms_dist.results.lineage import read_sources
from hms_dist.results.predictions import read_predictions
from hms_dist.shards.writer import read_part
from hms_dist.train.data.leakage import stored_record
from hms_dist.train.data.run_canvas import read_canvas, read_recipe
from hms_dist.train.folder.run_folder import read_config, stage_names
from hms_dist.train.loop import run as train
from hms_dist.train.settings import TrainConfig


@pytest.fixture(scope="module")
def stored(small_file, shard_set, tmp_path_factory):
    """A run with stages, finished."""
    out = tmp_path_factory.mktemp("stored") / "run"
    words = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(out), "--epochs", "1"]
    words += ["--model.name", "test_efficientnet", "--stages", '[{"name": "a"}, {"name": "b"}]']
    train(load(TrainConfig, words, prog="train.py"))
    return out


READERS = {
    "config.yaml": read_config,
    "stages.yaml": stage_names,
    "canvas.yaml": read_canvas,
    "render.yaml": read_recipe,
    "predictions.parquet": lambda run: (
        read_predictions(run / "predictions.parquet").to_dict(),
        read_sources(run / "predictions.parquet"),
    ),
    "best/meta.json": lambda run: stored_record(run / "best"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_in_a_record_of_a_run(stored, tmp_path, name, rng):
    run = shutil.copytree(stored, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    content, expected = (run / name).read_bytes(), READERS[name](run)
    for place in rng.integers(len(content), size=20):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        (run / name).write_bytes(flipped)
        message = ""
        try:
            found = READERS[name](run)
        except UserError as error:
            found, message = None, str(error)
        assert found == expected or (str(run / name) in message and "\n" not in message), place


def test_status_shows_a_run_whose_configuration_was_changed(stored, tmp_path, edited):
    run = shutil.copytree(stored, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("epochs: 1", "epochs: 3"))
    assert "config.yaml: its digest does not match" in look(run).message
    (run / "config.yaml").write_text(text)
    edited(run / "config.yaml", "epochs: 1", "epochs: 3")
    assert look(run).epochs == 3


def test_a_flipped_bit_in_the_part_of_an_unfinished_set_renders_its_shard_again(recordings, shard_set, tmp_path, rng):
    out = tmp_path / "set"
    for number in (0, 1):
        render(Render(data=recordings, out=out, samples_per_shard=16, job=f"{number}/3"))
    parts = sorted((out / ".parts").glob("*.parquet"))
    assert len(parts) >= 2
    whole, content = read_part(parts[1]), parts[1].read_bytes()
    num_refused = 0
    for place in rng.integers(len(content), size=40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        parts[1].write_bytes(flipped)
        found = read_part(parts[1])
        assert found is None or (found[0].equals(whole[0]) and found[1] == whole[1]), place
        num_refused += found is None
    assert num_refused > 10
    parts[1].write_bytes(content.replace(b"hms_dist.digest", b"hms_dist.digesT", 1)[:-9])
    render(Render(data=recordings, out=out, samples_per_shard=16))
    assert (out / "index.parquet").read_bytes() == (shard_set / "index.parquet").read_bytes()
