"""The command `ensemble`: its output, its fits, and the leaks that it rejects."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.ensemble import Ensemble, run
from hms_dist.predict.fit import fit_pool
from hms_dist.results.lineage import Source, read_sources
from hms_dist.results.metrics import kaggle_kl
from hms_dist.results.predictions import read_predictions, write_predictions


def ensemble(*words):
    run(load(Ensemble, [str(word) for word in words]))


def noisy(index, amount, rng):
    values = np.log(index.targets + 0.05) + rng.normal(0, amount, index.targets.shape)
    return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)


def probabilities(path, index):
    table = read_predictions(path).set_index("key").loc[index.frame["key"]]
    return table[list(CLASSES)].to_numpy()


@pytest.fixture
def three(index, out_of_fold, rng):
    """Three models with out-of-fold predictions: their tables, and the predictions [3, rows, 6]."""
    found = np.stack([noisy(index, amount, rng) for amount in (0.3, 1, 2)])
    return [out_of_fold(f"m{number}", each) for number, each in enumerate(found)], found


def test_equal_weights_whatever_the_order_of_the_rows(three, index, tmp_path):
    paths, found = three
    ensemble("--predictions", *paths, "--out", tmp_path / "mean.parquet")
    np.testing.assert_allclose(probabilities(tmp_path / "mean.parquet", index), found.mean(axis=0), rtol=1e-12)
    table = read_predictions(tmp_path / "mean.parquet").set_index("key").loc[index.frame["key"]]
    np.testing.assert_array_equal(table["fold"], index.folds(3))
    sources = read_sources(tmp_path / "mean.parquet")
    assert set(sources) == {source for path in paths for source in read_sources(path)}


def test_a_fit_reports_its_cross_validated_score(three, index, shard_set, tmp_path, capsys):
    paths, found = three
    ensemble("--predictions", *paths, "--out", tmp_path / "p.parquet", "--weights", "fit", "--labels", shard_set)
    kl, folds = json.loads(capsys.readouterr().out)["kl"], index.folds(3)
    expected = np.empty_like(index.targets)
    for fold in range(3):
        pool = fit_pool("geometric", found[:, folds != fold], index.targets[folds != fold])
        expected[folds == fold] = pool(found[:, folds == fold])
    np.testing.assert_allclose(probabilities(tmp_path / "p.parquet", index), expected, atol=1e-5)
    assert kl["fitted_cross_validated"] == pytest.approx(kaggle_kl(index.targets, expected), abs=1e-5)
    assert kl["fitted_on_its_own_rows"] <= kl["equal_weights"] + 1e-9
    np.testing.assert_allclose(kl["models"], [kaggle_kl(index.targets, each) for each in found], atol=1e-9)


@pytest.mark.parametrize("method", ["mean", "geometric"])
def test_stored_weights_are_applied_to_new_tables(three, index, shard_set, tmp_path, write, method, rng):
    paths, found = three
    fit = ["--out", tmp_path / "p.parquet", "--weights", "fit", "--labels", shard_set, "--method", method]
    ensemble("--predictions", *paths, *fit)
    new = [noisy(index, 1, rng) for _ in range(3)]
    tables = [write(f"new{number}.parquet", each, read_sources(paths[number])) for number, each in enumerate(new)]
    ensemble("--predictions", *tables, "--out", tmp_path / "n.parquet", "--weights", tmp_path / "p.json")
    expected = fit_pool(method, found, index.targets)(np.stack(new))
    np.testing.assert_allclose(probabilities(tmp_path / "n.parquet", index), expected, atol=1e-5)
    fitted = [source.model for source in read_sources(tmp_path / "n.parquet") if source.model.run.endswith("p.json")]
    assert fitted[0].patients == set(index.ids("patient_id"))
    with pytest.raises(UserError, match=r"p.json was fitted on 3 tables .*, found 2; give one for each"):
        ensemble("--predictions", *tables[:2], "--out", tmp_path / "n.parquet", "--weights", tmp_path / "p.json")
    with pytest.raises(UserError, match=r"new1.parquet: of the models of .*m1.parquet, but given in place of .*m0"):
        ensemble(
            "--predictions", tables[1], tables[0], tables[2], "--out", tmp_path / "n.parquet",
            "--weights", tmp_path / "p.json",
        )  # fmt: skip
    with pytest.raises(UserError, match=r"--method: .*p.json was fitted for .*, found rank_mean; leave the option out"):
        ensemble(
            "--predictions", *tables, "--out", tmp_path / "n.parquet", "--weights", tmp_path / "p.json",
            "--method", "rank_mean",
        )  # fmt: skip


def test_a_cross_fitted_table_can_be_fitted_to_and_applied_weights_cannot(three, shard_set, tmp_path):
    """The lineage includes the fits: their output can be fitted to only if no patient of its rows was used in a fit."""
    paths, _ = three
    fit = ["--weights", "fit", "--labels", shard_set]
    ensemble("--predictions", *paths, "--out", tmp_path / "p.parquet", *fit)
    ensemble("--predictions", tmp_path / "p.parquet", "--out", tmp_path / "again.parquet", *fit)
    ensemble("--predictions", *paths, "--out", tmp_path / "leak.parquet", "--weights", tmp_path / "p.json")
    with pytest.raises(UserError, match=r"leak.parquet: its model .*p.json \(no validation fold\) has seen"):
        ensemble("--predictions", tmp_path / "leak.parquet", "--out", tmp_path / "x.parquet", *fit)


class TestLeaks:
    """The leak of the course report: a fit to predictions of rows that the models trained on."""

    @pytest.fixture
    def fit_to(self, shard_set, tmp_path):
        def fit(*paths):
            ensemble(
                "--predictions", *paths, "--out", tmp_path / "x.parquet", "--weights", "fit", "--labels", shard_set
            )

        return fit

    def test_in_fold_predictions(self, three, index, record, write, fit_to):
        """Predictions of all rows by one model, which held out only the rows of its fold."""
        folds = np.where(index.folds(3) == 0, 0, -1)
        path = write("run.parquet", three[1][0], [Source(model=record("run", 0))], folds)
        with pytest.raises(UserError, match=r"run.parquet: \d+ of \d+ rows have no fold, so a model may have trained"):
            fit_to(three[0][0], path)

    def test_a_fold_that_was_written_over(self, three, index, record, write, fit_to):
        path = write("run.parquet", three[1][0], [Source(model=record("run", 0))], index.folds(3))
        with pytest.raises(UserError, match=r"run.parquet: its model run \(fold 0 of 3\) has seen (\d+) of the \1 "):
            fit_to(path)

    def test_a_model_trained_on_all_rows_among_others(self, three, index, record, write, fit_to):
        sources = [*read_sources(three[0][0]), Source(model=record("all", None))]
        path = write("mixed.parquet", three[1][0], sources, index.folds(3))
        with pytest.raises(UserError, match=r"mixed.parquet: its model all \(no validation fold\) has seen"):
            fit_to(path)

    def test_a_leak_through_a_teacher(self, three, index, record, write, fit_to):
        teacher = record("teacher", None)
        pupils = [Source(model=replace(record("pupil", fold), learnt_from=(teacher,)), fold=fold) for fold in range(3)]
        path = write("pupils.parquet", three[1][0], pupils, index.folds(3))
        with pytest.raises(UserError, match=r"its model pupil .* has seen .* through teacher \(no validation fold\)"):
            fit_to(path)

    def test_a_table_without_lineage(self, three, index, write, fit_to, tmp_path):
        with pytest.raises(UserError, match=r"silent.parquet: does not record which models made it, so they may have"):
            fit_to(write("silent.parquet", three[1][0], [], index.folds(3)))
        pd.read_parquet(three[0][0]).to_parquet(tmp_path / "copied.parquet")
        with pytest.raises(UserError, match=r"copied.parquet: does not record which models made it"):
            fit_to(tmp_path / "copied.parquet")

    def test_a_fold_without_a_model(self, three, index, write, fit_to):
        path = write("part.parquet", three[1][0], read_sources(three[0][0])[:2], index.folds(3))
        with pytest.raises(UserError, match=r"part.parquet: does not record which model made the rows of fold 2"):
            fit_to(path)


def test_a_mean_with_a_table_without_lineage_has_no_lineage(three, index, write, tmp_path, caplog):
    path = write("silent.parquet", three[1][0], [], index.folds(3))
    ensemble("--predictions", three[0][0], path, "--out", tmp_path / "mean.parquet")
    assert read_sources(tmp_path / "mean.parquet") == ()
    assert "silent.parquet does not record which models made it, so the result does not either" in caplog.text


@pytest.mark.parametrize("method", ["mean", "geometric"])
def test_submissions_are_pooled_by_their_eegs(submission, tmp_path, caplog, method, rng):
    ours, theirs = submission("ours.parquet"), submission("theirs.csv")
    both = [read_predictions(path).set_index("eeg_id")[list(CLASSES)] for path in (ours, theirs)]
    pd.read_csv(theirs).sample(frac=1, random_state=rng).assign(remark="by another team").to_csv(theirs, index=False)
    ensemble("--predictions", theirs, ours, "--method", method, "--out", tmp_path / "out.csv")
    found = read_predictions(tmp_path / "out.csv").set_index("eeg_id")
    expected = sum(both) / 2 if method == "mean" else np.exp(sum(map(np.log, both)) / 2)
    expected = expected.div(expected.sum(axis=1), axis=0)
    np.testing.assert_allclose(found, expected.loc[found.index], rtol=1e-6)
    assert "does not record which models made it" not in caplog.text


def test_the_submission_that_lacks_an_eeg_is_named(submission, tmp_path):
    whole, part = submission("a.csv"), submission("b.csv")
    table = pd.read_csv(part)
    table.iloc[1:].to_csv(part, index=False)
    with pytest.raises(UserError, match=rf"b.csv: lacks 1 of \d+ rows of .*a.csv, like {table['eeg_id'][0]}; predict"):
        ensemble("--predictions", whole, part, "--out", tmp_path / "out.csv")


def test_tables_of_other_rows_are_named(three, index, out_of_fold, tmp_path):
    paths, _ = three
    table = read_predictions(paths[1])
    write_predictions(tmp_path / "few.parquet", table.iloc[5:])
    out = ["--out", tmp_path / "x.parquet"]
    with pytest.raises(UserError, match=r"few.parquet: lacks 5 of \d+ rows of .*m0.parquet, like \d+-\d+; predict the"):
        ensemble("--predictions", paths[0], tmp_path / "few.parquet", *out)
    with pytest.raises(UserError, match=r"m0.parquet: has 5 rows that .*few.parquet lacks, like"):
        ensemble("--predictions", tmp_path / "few.parquet", paths[0], *out)
    table.assign(seizure=2.0).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(UserError, match=r"bad.parquet: key .*: expected six probabilities with a sum of 1"):
        ensemble("--predictions", tmp_path / "bad.parquet", *out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--weights", "fit"],
            "labels: are for fitting alone, which needs them; give --weights fit and --labels together",
        ),
        (["--labels", "s"], "labels: are for fitting alone"),
        (["--weights", "fit", "--labels", "s", "--method", "rank_mean"], "method: rank_mean has no weights to fit"),
        (["--weights", "nowhere.json"], "nowhere.json: no such file; check the path"),
        (["--method", "median"], "method"),
    ],
)
def test_invalid_options_are_one_line(three, tmp_path, capsys, words, message):
    out = ["--out", str(tmp_path / "x.parquet")]
    assert main(["ensemble", "--predictions", *map(str, three[0]), *out, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_mean_of_ranks_warns_about_its_kl(submission, tmp_path, caplog):
    tables = submission("a.csv"), submission("b.csv")
    ensemble("--predictions", *tables, "--method", "rank_mean", "--out", tmp_path / "ranks.csv")
    assert "rank_mean is for metrics of ranks: its KL is about twice that of the mean" in caplog.text
    caplog.clear()
    ensemble("--predictions", *tables, "--out", tmp_path / "mean.csv")
    assert "rank_mean" not in caplog.text
