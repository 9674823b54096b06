"""Stacking: inputs and loss against their formulas, an honest KL, and the course report's leak rejected."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import entropy

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.members import Labelled, Members
from hms_dist.predict.meta_model import (
    MetaConfig,
    StackRows,
    meta_inputs,
    meta_loss,
    meta_network,
    num_inputs,
    predicted,
    train_network,
)
from hms_dist.predict.stack import Stack, run, train_networks
from hms_dist.results.lineage import Source, read_sources
from hms_dist.results.metrics import kaggle_kl
from hms_dist.results.predictions import read_predictions


def stack(*words):
    run(load(Stack, [str(word) for word in words]))


def labelled(probabilities, targets, num_folds=5):
    """Honest tables of made-up rows, a patient per row."""
    num_rows = len(targets)
    members = Members(
        (Path("m"),) * len(probabilities), pd.DataFrame(), np.arange(num_rows) % num_folds, probabilities, ()
    )
    return Labelled(members, targets, np.arange(num_rows), "")


def nested(config, data):
    """KL of each fold's network on its fold, all folds together."""
    inputs = meta_inputs(data.members.probabilities, config.inputs)
    found = np.empty_like(data.targets)
    for fold, network in zip(data.folds, train_networks(config, data), strict=True):
        found[data.held_out(fold)] = predicted(network, inputs[torch.from_numpy(data.held_out(fold))])
    return kaggle_kl(data.targets, found)


def test_inputs_are_predictions_and_the_five_statistics(rng):
    found = rng.dirichlet(np.ones(6), (4, 20))
    row = pd.DataFrame(found[:, 7])
    statistics = np.concatenate([row.min(), row.max(), row.mean(), row.std(ddof=0), row.median()])
    np.testing.assert_allclose(meta_inputs(found, "statistics")[7], statistics, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(meta_inputs(found, "predictions")[7], found[:, 7].ravel(), rtol=1e-6)
    both = np.concatenate([found[:, 7].ravel(), statistics])
    np.testing.assert_allclose(meta_inputs(found, "both")[7], both, rtol=1e-5, atol=1e-7)
    for kind in ("predictions", "statistics", "both"):
        assert meta_inputs(found, kind).shape[1] == num_inputs(4, kind)
        assert meta_network(MetaConfig(inputs=kind, hidden=(8, 4)), 4)(meta_inputs(found, kind)).shape == (20, 6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.usefixtures("torch_rng")
def test_the_loss_is_the_weighted_sum_of_cross_entropy_and_kl(share, rng):
    logits = torch.randn(30, 6, dtype=torch.float64)
    targets = rng.dirichlet(np.ones(6), 30)
    found = torch.softmax(logits, dim=1).numpy()
    kl = np.mean([entropy(target, row) for target, row in zip(targets, found, strict=True)])
    ce = -np.log(found[np.arange(30), targets.argmax(axis=1)]).mean()
    assert float(meta_loss(logits, torch.from_numpy(targets), share)) == pytest.approx(share * ce + (1 - share) * kl)


def test_the_nested_kl_on_noise_is_no_better_than_the_mean(rng):
    """Labels that nothing predicts: only a leak could gain by them, and on its own rows the same network does."""
    targets = rng.dirichlet(np.ones(6), 400)
    found = rng.dirichlet(np.full(6, 200.0), (3, 400))
    data, config = labelled(found, targets), MetaConfig(hidden=(64,), lr=0.01, batch_size=64, max_epochs=100)
    plain = kaggle_kl(targets, found.mean(axis=0))
    assert nested(config, data) > plain - 0.01
    inputs = meta_inputs(found, "both")
    rows = StackRows((inputs - inputs.mean(dim=0)) / inputs.std(dim=0), torch.from_numpy(targets).float())
    long = replace(config, ce_weight=0.0, patience=config.max_epochs)
    leaked = predicted(train_network(long, 3, 0, rows, rows), rows.inputs)
    assert kaggle_kl(targets, leaked) < plain - 0.05


def test_where_there_is_something_to_learn_it_learns(rng):
    """One model is right but for two exchanged classes, the others are noise: the mean cannot know, a network can."""
    truth = rng.dirichlet(np.full(6, 0.3), 900)
    right = (truth + 0.02) / 1.12
    found = np.stack([right[:, [1, 0, 2, 3, 4, 5]], *rng.dirichlet(np.ones(6), (2, 900))])
    data = labelled(found, truth)
    plain = kaggle_kl(truth, found.mean(axis=0))
    assert nested(MetaConfig(lr=0.01, batch_size=64, max_epochs=60), data) < 0.6 * plain


def test_no_network_depends_on_the_votes_of_its_fold(rng):
    found, targets = rng.dirichlet(np.ones(6), (2, 90)), rng.dirichlet(np.ones(6), 90)
    config = MetaConfig(max_epochs=3, batch_size=16)
    before = train_networks(config, labelled(found, targets, 3))[1].state_dict()
    for fold, same in ((1, True), (0, False), (2, False)):
        changed = targets.copy()
        changed[fold::3] = rng.dirichlet(np.ones(6), 30)
        after = train_networks(config, labelled(found, changed, 3))[1].state_dict()
        equal = all(torch.equal(before[name], after[name]) for name in before)
        if same:
            assert equal
        elif fold == 0:
            assert not equal


@pytest.mark.usefixtures("torch_rng")
def test_training_ends_without_improvement_and_keeps_the_best(monkeypatch, rng):
    rows = StackRows(torch.randn(64, 12), torch.from_numpy(rng.dirichlet(np.ones(6), 64)).float())
    held_out = StackRows(torch.randn(64, 12), torch.from_numpy(rng.dirichlet(np.ones(6), 64)).float())
    seen = []
    real = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a, **k: seen.append(1) or real(self, *a, **k))
    config = MetaConfig(inputs="predictions", lr=0.05, batch_size=64, max_epochs=400, patience=5)
    network = train_network(config, 2, 0, rows, held_out)
    assert len(seen) < 400
    last = train_network(MetaConfig(**{**vars(config), "patience": 400, "max_epochs": len(seen)}), 2, 0, rows, held_out)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, last.state_dict()[name])
    shorter = train_network(MetaConfig(**{**vars(config), "max_epochs": len(seen) - 5}), 2, 0, rows, held_out)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, shorter.state_dict()[name])


@pytest.fixture
def tables(index, out_of_fold, rng):
    found = rng.dirichlet(np.ones(6), (2, len(index)))
    return [out_of_fold(f"m{number}", each) for number, each in enumerate(found)], found


def test_a_fit_is_kept_compared_and_applied(tables, index, shard_set, tmp_path, capsys):
    paths, found = tables
    quick = ["--model.max_epochs", 3, "--model.hidden", 8, "--model.inputs", "statistics"]
    stack("--predictions", *paths, "--labels", shard_set, "--out", tmp_path / "fit", *quick)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["predictions", "fold 0", "fold 1", "fold 2", "all"]
    cells = {line[0]: line[1:] for line in lines[2:]}
    assert float(cells["plain mean"][-1]) == pytest.approx(kaggle_kl(index.targets, found.mean(axis=0)), abs=1e-4)
    kept = read_predictions(tmp_path / "fit/predictions.parquet").set_index("key").loc[index.frame["key"]]
    honest = kaggle_kl(index.targets, kept[list(CLASSES)].to_numpy())
    assert float(cells["stack, nested"][-1]) == pytest.approx(honest, abs=1e-4)
    assert json.loads((tmp_path / "fit/stack.json").read_text())["kl"][-1]["all"] == pytest.approx(honest)

    stack("--predictions", *paths, "--apply", tmp_path / "fit", "--out", tmp_path / "p.parquet")
    tensors = load_file(tmp_path / "fit/model.safetensors")
    answers = []
    for number in range(3):
        hidden = torch.relu(
            meta_inputs(found, "statistics") @ tensors[f"{number}.0.weight"].T + tensors[f"{number}.0.bias"]
        )
        logits = hidden @ tensors[f"{number}.2.weight"].T + tensors[f"{number}.2.bias"]
        answers.append(torch.softmax(logits.double(), dim=1).numpy())
    table = read_predictions(tmp_path / "p.parquet").set_index("key").loc[index.frame["key"]]
    np.testing.assert_allclose(table[list(CLASSES)], np.mean(answers, axis=0), atol=1e-6)
    last = read_sources(tmp_path / "p.parquet")[-1].model
    assert last.patients == set(index.ids("patient_id"))

    with pytest.raises(UserError, match=r"fit was fitted on 2 tables .*, found 1; give one for each"):
        stack("--predictions", paths[0], "--apply", tmp_path / "fit", "--out", tmp_path / "p.parquet")
    with pytest.raises(UserError, match=r"m1.parquet: of the models of .*m1.parquet, but given in place of"):
        stack("--predictions", *paths[::-1], "--apply", tmp_path / "fit", "--out", tmp_path / "p.parquet")
    (tmp_path / "fit/model.safetensors").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"its SHA-256 is not the one in hashes.json; not a complete folder of hms-dist"
    ):
        stack("--predictions", *paths, "--apply", tmp_path / "fit", "--out", tmp_path / "p.parquet")


def test_same_seed_same_networks(tables, shard_set, tmp_path):
    paths, _ = tables
    quick = ["--model.max_epochs", 2, "--model.hidden", 4]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ["--labels", shard_set, "--out", tmp_path / name, *quick, "--model.seed", seed]
        stack("--predictions", *paths, *words)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_a_meta_model_is_not_judged_on_rows_that_base_models_trained_on(
    tables, index, record, write, shard_set, tmp_path
):
    """The course report's leak, in both its forms: predictions of all rows by one model, and their fold leased."""
    to = ["--labels", shard_set, "--out", tmp_path / "x"]
    everything = write("all.parquet", tables[1][0], [Source(model=record("all", None))])
    with pytest.raises(UserError, match=r"all.parquet: \d+ of \d+ rows have no fold, so a model may have trained on"):
        stack("--predictions", tables[0][0], everything, *to)
    leased = write("leased.parquet", tables[1][0], [Source(model=record("all", None))], index.folds(3))
    with pytest.raises(
        UserError, match=r"leased.parquet: its model all \(no validation fold\) has seen (\d+) of the \1"
    ):
        stack("--predictions", tables[0][0], leased, *to)
    assert not (tmp_path / "x").exists()


def test_fewer_than_three_folds_are_refused(tables, index, record, write, shard_set, tmp_path):
    rows = np.flatnonzero(index.folds(3) < 2)
    sources = [Source(model=record("m", fold), fold=fold) for fold in (0, 1)]
    path = write("two.parquet", tables[1][0][rows], sources, index.folds(3)[rows], rows)
    with pytest.raises(UserError, match=r"stacking needs 3 folds \(to train on, to stop by, to predict\), found 2"):
        stack("--predictions", path, "--labels", shard_set, "--out", tmp_path / "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "labels: fitting needs them, applying"),
        (["--labels", "s", "--apply", "f"], "labels: fitting needs them, applying"),
        (
            ["--labels", "s", "--model.inputs", "votes"],
            "model.inputs: unknown 'votes'; one of: predictions, statistics",
        ),
        (["--labels", "s", "--model.hidden", 0], r"model.hidden: expected at least 1, found \(0,\)"),
        (["--labels", "s", "--model.ce_weight", 2], "model.ce_weight: expected 0 to 1, found 2"),
        (["--labels", "s", "--model.lr", 0], "model.lr: expected a rate above 0, found 0"),
        (
            ["--apply", "nowhere"],
            r"nowhere/hashes.json: No such file or directory; not a complete folder of hms-dist stack",
        ),
    ],
)
def test_what_cannot_work(tables, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        stack("--predictions", *tables[0], "--out", tmp_path / "x", *words)
