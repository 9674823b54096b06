"""A run with filters, an overlay and locality: what it trains on, and what it refuses before any rank is joined."""

import json
import re
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.results.metrics import kaggle_kl
from hms_dist.shards.index import read_index
from hms_dist.stream.rows.filters import label_peakedness
from hms_dist.stream.rows.locality import LocalityConfig
from hms_dist.train import session
from hms_dist.train.data.run_data import epoch_rows, open_run_data
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run


@pytest.fixture
def index(shard_set):
    return read_index(shard_set / "index.parquet")


@pytest.fixture
def labels(index, tmp_path, rng):
    """A table of random targets for the samples of the set; its probabilities."""
    probabilities = rng.dirichlet(np.ones(6), len(index))
    frame = pd.DataFrame(probabilities, columns=list(CLASSES)).assign(key=index.frame["key"])
    frame.to_parquet(tmp_path / "labels.parquet")
    return probabilities


def again(config):
    AcceleratorState._reset_state(reset_partial_state=True)
    run(config)


def test_training_has_the_overlay_and_validation_the_votes(small, index, labels, tmp_path, monkeypatch):
    config = small(epochs=1, overlay__file=tmp_path / "labels.parquet", overlay__made_by_models=False)
    seen, real = [], Stepper.take
    monkeypatch.setattr(
        Stepper, "take", lambda self, *given, **also: seen.append(self.targets) or real(self, *given, **also)
    )
    run(config)
    data = open_run_data(config)
    np.testing.assert_allclose(seen[0][data.train_rows], labels[data.train_rows], rtol=1e-12)
    table = pd.read_parquet(config.out / "predictions.parquet")[list(CLASSES)].to_numpy()
    (val_kl,) = [line["val_kl"] for line in read_metrics(config.out) if "val_kl" in line]
    assert val_kl == pytest.approx(kaggle_kl(index.targets[data.validation_rows], table), abs=1e-6)


def test_filters_narrow_what_the_plan_chooses_from(small, index):
    threshold = float(np.median(label_peakedness(index.votes)))
    config = small(filters__label_peakedness=threshold, global_batch=2, group_size=1)
    data = open_run_data(config)
    assert 0 < len(data.labels.rows) < len(data.train_rows)
    for epoch in range(config.epochs):
        rows = epoch_rows(config, data, epoch)
        assert set(rows) <= set(data.labels.rows)
        assert len(rows) == data.steps_of[epoch] * 2


def test_a_table_that_changed_is_refused_at_resume(small, labels, tmp_path):
    options = {"epochs": 1, "overlay__file": tmp_path / "labels.parquet", "overlay__made_by_models": False}
    run(small(**options))
    frame = pd.read_parquet(tmp_path / "labels.parquet")
    frame[list(CLASSES)] = np.roll(labels, 1, axis=1)
    frame.to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(
        UserError, match=r"run: the tables of filters.predictions or overlay.file changed since the run began"
    ):
        again(small(**options))


def test_a_run_by_blocks_reads_the_same_panels_and_ends(small, index):
    options = {"locality__block_rows": 4, "locality__window_blocks": 2, "locality__num_lanes": 2}
    config = small(epochs=1, **options)
    assert config.locality == LocalityConfig(block_rows=4, window_blocks=2, num_lanes=2)
    by_blocks, plain = open_run_data(config), open_run_data(small())
    rows = epoch_rows(config, by_blocks, 0)
    assert by_blocks.shards.reader.storage.depth == 16, "blocks are for storage that answers slowly"
    assert open_run_data(small(**options, storage__depth=3)).shards.reader.storage.depth == 3
    with closing(by_blocks.shards.reader), closing(plain.shards.reader):
        for name, found in by_blocks.shards.reader.read(rows).items():
            np.testing.assert_array_equal(found, plain.shards.reader.read(rows)[name])
    run(config)
    assert json.loads((config.out / "status.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection__min_votes_schedule": "[[1,1000]]"}, r"selection leaves 0 of \d+ training rows in epoch 1, one"),
        ({"filters__label_peakedness": -1.0}, r"filters leave none of \d+ training rows \(label_peakedness below -1"),
        ({"overlay__file": "nowhere.parquet"}, r"nowhere\.parquet: no such file; check the path"),
        (
            {"filters__model_loss": 1.0, "filters__predictions": "[nowhere.parquet]"},
            r"nowhere\.parquet: no such file; check the path",
        ),
        ({"locality__num_lanes": 3}, r"locality.num_lanes: expected a divisor of global_batch \(4\), found 3"),
        (
            {"locality__blocks": 4},
            r"--locality.blocks: unknown option 'blocks'; did you mean --locality.block_rows\? one of: block_rows,",
        ),
        ({"locality__block_rows": 0}, r"locality.block_rows: expected at least 1, found 0"),
        ({"selection__rule": "best"}, r"selection.rule: unknown 'best'; one of: all, "),
        ({"filters__model_loss": 1.0}, r"filters.predictions: model_loss needs them, and nothing else uses them"),
    ],
)
def test_what_cannot_work_is_refused_before_ranks_are_joined(small, monkeypatch, options, message):
    monkeypatch.setattr(session, "open_world", lambda *_, **__: pytest.fail("the process group was started"))
    with pytest.raises(UserError, match=message) as caught:
        run(small(**options))
    assert "\n" not in str(caught.value)
    assert not small().out.exists()


def test_what_was_done_to_the_rows_is_in_the_log(small, labels, tmp_path):
    overlay = {"overlay__file": tmp_path / "labels.parquet", "overlay__made_by_models": False}
    config = small(epochs=1, filters__label_peakedness=100, **overlay)
    run(config)
    log = (config.out / "train.log").read_text()
    assert "filter label_peakedness below 100 keeps" in log
    assert "it does nothing" in log
    assert "targets of" in log
    assert "training part:" in log


def test_the_log_counts_the_rows_that_filters_and_overlay_leave(small, labels, index, tmp_path):
    overlay = {"overlay__file": tmp_path / "labels.parquet", "overlay__made_by_models": False}
    options = {
        "filters__label_peakedness": float(np.median(label_peakedness(index.votes))),
        **overlay,
        "overlay__missing": "drop",
    }
    config = small(epochs=1, model__name="test_efficientnet", **options)
    data = open_run_data(config)
    assert len(data.labels.rows) < len(data.train_rows)
    run(config)
    log = (config.out / "train.log").read_text()
    counts = re.search(r"training part: (.*) rows", log)[1]
    assert sum(int(count.split()[0]) for count in counts.split(", ")) == len(data.labels.rows)
    assert f": {len(data.labels.rows)} training and {len(data.validation_rows)} validation rows" in log
