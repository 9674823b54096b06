"""The patients that a run has seen are in its metadata, and a run that would learn from its validation fold does not
begin."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from hms_dist.core.errors import UserError
from hms_dist.results.lineage import ModelRecord, Source, read_sources
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import open_set
from hms_dist.train.data.leakage import SEEN_KEY, continued, run_record, stored_record
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.checkpoint import save_checkpoint, save_weights
from hms_dist.train.loop import run


@pytest.fixture
def manifest_index(shard_set):
    return open_set(shard_set)


@pytest.fixture
def record_of(small, manifest_index):
    """The record of a run on the small set with these options."""

    def make(**options):
        config = small(**options)
        data = open_run_data(config)
        return run_record(config, data.index, data.train_rows, manifest_index[0].fingerprint)

    return make


@pytest.fixture
def table_of(manifest_index, tmp_path, rng):
    """Write a table of random predictions of `rows` with the fold of each (-1: none); its path."""

    def make(name, rows, folds, *models):
        found = rng.dirichlet(np.ones(6), len(rows))
        table = prediction_table(manifest_index[1].frame.iloc[rows], np.broadcast_to(folds, len(rows)), found)
        write_predictions(tmp_path / name, table, [Source(model=model) for model in models])
        return tmp_path / name

    return make


def rows_of_folds(index, *folds):
    return np.flatnonzero(np.isin(index.folds(3), folds))


def test_a_run_records_what_it_saw_beside_its_weights_and_in_its_predictions(small, manifest_index):
    config = small(epochs=1, fold=1, seed=5)
    run(config)
    _, index = manifest_index
    (source,) = read_sources(config.out / "predictions.parquet")
    assert source.fold == 1
    assert (source.model.fold, source.model.num_folds, source.model.seed) == (1, 3, 5)
    assert source.model == stored_record(config.out / "best")
    hashes = json.loads((config.out / "best/hashes.json").read_text())
    assert source.model.weights == hashes["model.safetensors"]
    patients = index.ids("patient_id")
    assert source.model.patients == set(patients[index.folds(3) != 1])
    assert not source.model.patients & set(patients[index.folds(3) == 1])
    assert SEEN_KEY in json.loads((config.out / "final/meta.json").read_text())


def test_pseudo_labels_whose_model_saw_the_validation_fold_are_refused(small, record_of, table_of, manifest_index):
    """The 16th place's method with a validation fold: label with models of all rows, validate on their patients."""
    _, index = manifest_index
    rows = np.arange(len(index))
    num_patients = len(np.unique(index.ids("patient_id")[index.folds(3) == 0]))
    saw = table_of("saw.parquet", rows, -1, record_of(fold=0), record_of(out="other", fold=1))
    with pytest.raises(UserError, match=rf"saw.parquet: its model \S*other \(fold 1 of 3\) has seen {num_patients} of"):
        open_run_data(small(fold=0, overlay__file=saw))
    on_all = table_of("all.parquet", rows, -1, record_of(fold="none"))
    with pytest.raises(UserError, match=r"\(no validation fold\) has seen .* of validation fold 2 of 3"):
        open_run_data(small(fold=2, overlay__file=on_all))
    assert len(open_run_data(small(fold="none", overlay__file=saw)).validation_rows) == 0
    clean = table_of("clean.parquet", rows, -1, record_of(fold=0))
    assert len(open_run_data(small(fold=0, overlay__file=clean)).validation_rows)


def test_a_leak_through_what_a_model_learnt_from_is_refused(small, record_of, table_of, manifest_index):
    rows = np.arange(len(manifest_index[1]))
    teacher = record_of(out="teacher", fold=1)
    pupil = replace(record_of(out="pupil", fold=0), learnt_from=(teacher,))
    path = table_of("p.parquet", rows, -1, pupil)
    with pytest.raises(UserError, match=r"pupil \(fold 0 of 3\) has seen .* 0 of 3, through \S*teacher \(fold 1 of 3"):
        open_run_data(small(fold=0, overlay__file=path))


def test_a_table_that_does_not_say_who_made_it_is_refused_with_a_fold(small, table_of, manifest_index):
    path = table_of("p.parquet", np.arange(len(manifest_index[1])), -1)
    with pytest.raises(UserError, match=r"p.parquet: does not record which models made it, .*overlay.made_by_models"):
        open_run_data(small(fold=0, overlay__file=path))
    open_run_data(small(fold="none", overlay__file=path))
    open_run_data(small(fold=0, overlay__file=path, overlay__made_by_models=False))


def test_rewriting_a_table_with_pandas_does_not_launder_it(small, record_of, table_of, manifest_index, tmp_path):
    path = table_of("p.parquet", np.arange(len(manifest_index[1])), -1, record_of(fold="none"))
    pd.read_parquet(path).to_parquet(tmp_path / "again.parquet")
    with pytest.raises(UserError, match="does not record which models made it"):
        open_run_data(small(fold=0, overlay__file=tmp_path / "again.parquet"))


def filtered(small, *paths, **options):
    return small(filters__model_loss=1e9, filters__predictions=f"[{','.join(map(str, paths))}]", **options)


def test_a_loss_from_in_fold_predictions_is_refused(small, record_of, table_of, manifest_index):
    """The two-stage course project's text with one model: the loss of rows that it trained on. Stating a fold fails
    too."""
    _, index = manifest_index
    rows = rows_of_folds(index, 1, 2)
    honest = table_of("honest.parquet", rows, -1, record_of(fold=0))
    with pytest.raises(UserError, match=r"honest.parquet: key .*: no fold, so its model may have trained on it"):
        open_run_data(filtered(small, honest, fold=0))
    lied = table_of("lied.parquet", rows, index.folds(3)[rows], record_of(fold=0))
    with pytest.raises(
        UserError, match=r"lied.parquet: its model .* \(fold 0 of 3\) has seen (\d+) of the \1 patients"
    ):
        open_run_data(filtered(small, lied, fold=0))


def test_a_loss_by_models_that_saw_the_validation_fold_is_refused(small, record_of, table_of, manifest_index):
    """Out of fold for the rows, yet each model trained on the patients that the run validates on."""
    _, index = manifest_index
    plain = [table_of(f"{k}.parquet", rows_of_folds(index, k), k, record_of(out=f"r{k}", fold=k)) for k in (1, 2)]
    with pytest.raises(UserError, match=r"1.parquet: its model \S*r1 \(fold 1 of 3\) has seen .* validation fold 0 of"):
        open_run_data(filtered(small, *plain, fold=0))
    nested = [
        table_of(f"n{k}.parquet", rows_of_folds(index, k), k, record_of(out=f"n{k}", fold=k, left_out_folds=[0]))
        for k in (1, 2)
    ]
    data = open_run_data(filtered(small, *nested, fold=0))
    np.testing.assert_array_equal(data.labels.rows, data.train_rows)


def test_first_weights_of_a_run_that_saw_the_validation_fold_are_refused(small, record_of, tmp_path):
    save_weights(tmp_path / "best", torch.nn.Linear(1, 1), {SEEN_KEY: record_of(out="first", fold=1).to_json()})
    weights = str(tmp_path / "best/model.safetensors")
    with pytest.raises(UserError, match=r"best/model.safetensors: its model \S*first \(fold 1 of 3\) has seen"):
        open_run_data(small(fold=0, model__weights=weights))
    config = small(fold=1, model__weights=weights)
    data = open_run_data(config)
    record = run_record(config, data.index, data.train_rows, "")
    assert [model.run for model in record.learnt_from] == [str(tmp_path / "first")]


def test_weights_of_a_checkpoint_or_behind_a_link_do_not_hide_a_leak(small, record_of, tmp_path):
    model, record = torch.nn.Linear(1, 1), record_of(out="first", fold=1).to_json()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    kept = save_checkpoint(tmp_path, 3, model=model, optimizer=optimizer, state={SEEN_KEY: record})
    save_weights(tmp_path / "best", model, {SEEN_KEY: record})
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "best/model.safetensors")
    for weights in (kept / "model.safetensors", tmp_path / "link.safetensors"):
        with pytest.raises(UserError, match=rf"{weights}: its model \S*first \(fold 1 of 3\) has seen"):
            open_run_data(small(fold=0, model__weights=str(weights)))


def test_what_learnt_from_unknown_models_is_no_teacher(small, record_of, table_of, manifest_index):
    """Without a fold per table of unknown models is taken, and its pupil may then have seen anybody, too."""
    rows = np.arange(len(manifest_index[1]))
    silent = table_of("silent.parquet", rows, -1)
    pupil = record_of(out="pupil", fold="none", overlay__file=silent)
    assert pupil.unknown_teacher == str(silent)
    assert record_of(fold="none", overlay__file=silent, overlay__made_by_models=False).unknown_teacher == ""
    far = replace(pupil, patients=frozenset())
    path = table_of("p.parquet", rows, -1, replace(record_of(fold=0), learnt_from=(far,)))
    message = (
        r"p.parquet: its model \S* \(fold 0 of 3\) learned from \S*silent.parquet, which does not record which models"
    )
    with pytest.raises(UserError, match=message):
        open_run_data(small(fold=0, overlay__file=path))
    open_run_data(small(fold="none", overlay__file=path))
    later = continued(record_of(fold=0), {SEEN_KEY: pupil.to_json()})
    assert later.unknown_teacher == str(silent)


def test_left_out_folds_are_neither_trained_nor_validated_on(small, manifest_index):
    _, index = manifest_index
    data = open_run_data(small(fold=0, left_out_folds=[2]))
    assert set(index.folds(3)[data.train_rows]) == {1}
    assert set(index.folds(3)[data.validation_rows]) == {0}
    with pytest.raises(UserError, match=r"left_out_folds: expected 0 to 2 other than fold, found \[0\]"):
        small(fold=0, left_out_folds=[0])
    with pytest.raises(UserError, match=r"left_out_folds: \[1, 2\] leave no fold to train on"):
        small(fold=0, left_out_folds=[1, 2])


def test_a_resumed_run_has_seen_what_it_saw_before(record_of):
    before, now = record_of(fold=0), record_of(fold=1)
    assert continued(now, {SEEN_KEY: before.to_json()}).patients == before.patients | now.patients


def test_records_survive_json(record_of):
    record = replace(record_of(fold="none"), learnt_from=(record_of(fold=1), record_of(fold=2)))
    assert ModelRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
