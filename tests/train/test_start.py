"""`hms_dist.train` gives the same run as the command, from a recipe, options or a configuration."""

from dataclasses import replace

import pytest

import hms_dist
from hms_dist.train.folder.record import is_finished
from hms_dist.train.folder.run_folder import read_config


def test_a_run_is_trained_and_continued(small, small_file, shard_set, tmp_path):
    given = {"shards": shard_set, "out": tmp_path / "run", "epochs": 1, "optim.lr": 0.002}
    assert hms_dist.train(str(small_file), **given) == tmp_path / "run"
    assert is_finished(tmp_path / "run")
    assert read_config(tmp_path / "run") == small(epochs=1, optim__lr=0.002)
    before = (tmp_path / "run/metrics.jsonl").read_text()
    assert hms_dist.train(small(epochs=1), **{"optim.lr": 0.002}) == tmp_path / "run"
    assert (tmp_path / "run/metrics.jsonl").read_text() == before


def test_invalid_options_are_rejected(small, tmp_path):
    config = small(epochs=1)
    config.out.mkdir()
    with pytest.raises(hms_dist.UserError, match="expected 0 to 2"):
        hms_dist.train(config, fold=7)
    with pytest.raises(hms_dist.UserError, match="no such folder"):
        hms_dist.train(replace(config, shards=str(tmp_path / "none")))
