"""Data-wide statistics of a run: exact, of its training rows alone, computed once, equal at any number of ranks."""

import json

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.core.files import sealed, unsealed
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.infer import Predict
from hms_dist.predict.infer import run as predict
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest
from hms_dist.stream.read.reader import ShardReader
from hms_dist.train.data import run_canvas
from hms_dist.train.data.run_canvas import read_canvas
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.data.statistics import filled, needs_statistics, row_moments
from hms_dist.train.loop import run

CANVAS = """
height: 64
width: 64
placements:
  - {panel: kaggle_spectrogram, normalise: {class_path: DataWide}, arrangement: stacked, resize: area,
     top: 0, left: 0, height: 32, width: 64}
  - {panel: kaggle_spectrogram, regions: [LP, RP], arrangement: stacked, resize: area,
     normalise: {class_path: DataWide, init_args: {low_ln: -2, high_ln: 2, gaps: mean}},
     top: 32, left: 0, height: 32, width: 64}
"""


@pytest.fixture
def data_wide(small, tmp_path):
    """The small configuration with a canvas of two data-wide placements."""
    path = tmp_path / "data_wide.yaml"
    path.write_text(CANVAS)
    return lambda out="run", **options: small(out, canvas=path, epochs=1, **options)


def expected_statistics(shard_set, rows) -> list[tuple[float, float]]:
    """Mean and deviation of both placements over `rows`, by numpy in two passes."""
    manifest, index = read_manifest(shard_set), read_index(shard_set / "index.parquet")
    stored = ShardReader(shard_set, manifest, index, ["kaggle_spectrogram"]).read(rows)["kaggle_spectrogram"]
    regions = manifest.panels["kaggle_spectrogram"].regions
    first = np.clip(np.nan_to_num(stored.astype(np.float64), nan=-6.0), -6, 10)
    second = np.clip(stored[:, [regions.index("LP"), regions.index("RP")]].astype(np.float64), -2, 2)
    found = []
    for values in (first, second):
        mean = np.mean([np.nanmean(row) for row in values])
        found.append((mean, np.sqrt(np.nanmean((values - mean) ** 2))))
    return found


def statistics(canvas) -> list[tuple[float, float]]:
    return [(item.normalise.mean, item.normalise.deviation) for item in canvas.placements]


def test_a_run_keeps_the_statistics_of_its_training_rows(data_wide, shard_set):
    config = data_wide()
    run(config)
    data = open_run_data(config)
    found = statistics(read_canvas(config.out))
    np.testing.assert_allclose(found, expected_statistics(shard_set, data.train_rows), rtol=0, atol=1e-10)
    everything = expected_statistics(shard_set, np.arange(len(data.index)))
    assert np.abs(np.subtract(found, everything)).max() > 1e-4
    assert read_canvas(config.out) == load(CanvasConfig, ["--config", str(config.out / "canvas.yaml")])


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_the_rows_and_agree_to_the_bit(data_wide, num_ranks, monkeypatch):
    monkeypatch.setattr("hms_dist.train.data.statistics.GROUP_ROWS", 4)
    data = open_run_data(data_wide())
    alone, moments = row_moments(data.plain, data.train_rows, threads=2)
    parts = [row_moments(data.plain, data.train_rows, threads=1, rank=r, num_ranks=num_ranks) for r in range(num_ranks)]
    rows = np.concatenate([part[0] for part in parts])
    assert sorted(rows) == sorted(alone) == sorted(data.train_rows)
    together = np.concatenate([part[1] for part in parts])[np.argsort(rows)]
    np.testing.assert_array_equal(together, moments[np.argsort(alone)])


def test_a_resume_reads_what_a_changed_fold_recomputes(data_wide, monkeypatch):
    config = data_wide()
    run(config)
    before = read_canvas(config.out)
    monkeypatch.setattr(run_canvas, "row_moments", lambda *_, **__: pytest.fail("computed again"))
    AcceleratorState._reset_state(reset_partial_state=True)
    run(config)
    assert read_canvas(config.out) == before
    path = config.out / "statistics.json"
    record = unsealed(json.loads(path.read_text()), path)
    record["depends_on"]["rows_sha256"] = "of other rows"
    for changed in (sealed(record), {**sealed(record), "canvas": {}}):
        path.write_text(json.dumps(changed))
        AcceleratorState._reset_state(reset_partial_state=True)
        with pytest.raises(pytest.fail.Exception, match="computed again"):
            run(config)


def test_predict_sees_the_canvas_of_the_run(data_wide, shard_set, tmp_path):
    config = data_wide()
    run(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    predict(Predict(run=config.out, shards=shard_set, out=tmp_path / "p.parquet"))
    every = pd.read_parquet(tmp_path / "p.parquet").set_index("key")
    held_out = pd.read_parquet(config.out / "predictions.parquet").set_index("key")
    difference = every.loc[held_out.index, list(CLASSES)] - held_out[list(CLASSES)]
    assert difference.abs().max(axis=None) < 1e-6


def test_a_canvas_without_such_statistics_is_kept_as_it_is(small):
    config = small(epochs=1)
    run(config)
    assert read_canvas(config.out) == config.canvas
    assert not (config.out / "statistics.json").exists()


def test_a_run_without_a_canvas_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"canvas.yaml: no such file; is this a run folder"):
        read_canvas(tmp_path)


def test_what_is_known_stays(data_wide):
    canvas = data_wide().canvas
    assert needs_statistics(canvas)
    moments = np.tile([10.0, 0.25, 40.0], (3, 2, 1))
    known = filled(canvas, moments)
    assert statistics(known) == [(0.25, 2.0), (0.25, 2.0)]
    assert not needs_statistics(known)
    assert filled(known, moments[:, :0]) == known
