"""A run that begins with the weights of another: the backbone, and the classifier by the names of its classes."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset, write_dataset
from hms_dist.results.lineage import ModelRecord, check_unseen
from hms_dist.train.data.leakage import dataset_of_weights, stored_record
from hms_dist.train.learn.network import build_network
from hms_dist.train.loop import run
from hms_dist.train.ranks.world import open_world
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stages import open_stages

HEAD = ("classifier.weight", "classifier.bias")


@pytest.fixture(scope="module")
def first(small_file, shard_set, tmp_path_factory):
    """A run of one epoch on HMS."""
    out = tmp_path_factory.mktemp("init") / "first"
    words = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(out)]
    config = load(TrainConfig, [*words, "--epochs", "1", "--optim.lr", "0.01"], prog="train.py")
    run(config)
    AcceleratorState._reset_state(reset_partial_state=True)
    return config


def begun(config, dataset=HMS):
    """State of the network that a configuration begins with."""
    (config,) = open_stages(config)
    return build_network(config, open_world("float32", 60), dataset)[0].state_dict()


def test_a_run_begins_with_the_weights_of_another(small, first):
    kept = load_file(first.out / "best/model.safetensors")
    found = begun(small("second", init=first.out, seed=5))
    assert all(torch.equal(found[name], tensor) for name, tensor in kept.items())
    config = small("second", init=first.out, seed=5, epochs=1)
    run(config)
    (teacher,) = stored_record(config.out / "best").learnt_from
    assert teacher.run == str(first.out)
    run(config)  # finished: nothing changes


def test_a_stopped_run_whose_initial_weights_changed_is_not_resumed(small, first, tmp_path):
    base = shutil.copytree(first.out, tmp_path / "base")
    options = {"init": base, "epochs": 1, "global_batch": 4, "group_size": 2}
    config = small("second", **options)
    run(config)
    shutil.rmtree(config.out / "final")
    (config.out / "status.json").write_text("{}")  # as if stopped after its last checkpoint
    shutil.rmtree(base)
    run(small("base", epochs=1, seed=9))
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(
        UserError, match=r"second: its initial weights .*base/best/.* changed since the run began; rest"
    ):
        run(config)
    assert not (config.out / "final").exists()
    AcceleratorState._reset_state(reset_partial_state=True)
    run(small("second", other_shards=True, **options))
    assert (config.out / "final").exists()


def test_classes_keep_their_row_of_the_classifier_by_name(small, first):
    lab = Dataset(name="lab", classes=("calm", "gpd", "seizure"))
    kept = load_file(first.out / "best/model.safetensors")
    fresh = begun(small("fresh", seed=5), lab)
    found = begun(small("second", init=first.out, seed=5), lab)
    for name, tensor in kept.items():
        if name not in HEAD:
            assert torch.equal(found[name], tensor), name
    for name in HEAD:
        assert torch.equal(found[name][0], fresh[name][0])
        assert torch.equal(found[name][1], kept[name][HMS.classes.index("gpd")])
        assert torch.equal(found[name][2], kept[name][HMS.classes.index("seizure")])


def test_as_many_classes_of_other_names_are_initialised_at_random(small, first, tmp_path):
    lab = Dataset(name="lab", classes=("a", "b", "c", "d", "e", "f"))
    fresh, found = begun(small("fresh", seed=5), lab), begun(small("second", init=first.out, seed=5), lab)
    assert all(torch.equal(found[name], fresh[name]) for name in HEAD)
    other = shutil.copytree(first.out, tmp_path / "other")  # as if it had been trained on these classes
    write_dataset(other, lab)
    assert dataset_of_weights(str(other / "best/model.safetensors")) == lab
    kept = load_file(other / "best/model.safetensors")
    again = begun(small("third", init=other, seed=5), lab)
    assert all(torch.equal(again[name], kept[name]) for name in HEAD)


def test_what_cannot_be_begun_with_is_refused(small, first, tmp_path):
    with pytest.raises(UserError, match=r"init: .*nowhere is not a run folder \(no config.yaml\); check the path"):
        open_stages(small("second", init=tmp_path / "nowhere"))
    with pytest.raises(
        UserError, match=r"init: .*first trained another network \(test_efficientnet\), expected resnet18"
    ):
        open_stages(small("second", init=first.out, model__name="resnet18"))
    with pytest.raises(UserError, match=r"its model .* has seen \d+ of the \d+ patients of validation fold 1 of 3"):
        run(small("second", init=first.out, fold=1))


@pytest.mark.slow
def test_a_grid_whose_first_run_has_changed_or_gone_is_refused(
    first, small_file, shard_set, launcher, repository, tmp_path, monkeypatch, capsys
):
    """In one line, and nothing is written or lost."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))
    base = shutil.copytree(first.out, tmp_path / "base")
    recipe = {"name": "a", "configs": [str(small_file)], "options": {"init": str(base), "epochs": 1}}
    words = ["grid", "--recipes", json.dumps([recipe]), "--shards", str(shard_set), "--launch.words", launcher]
    words += ["--out", f"{tmp_path}/run-{{seed}}", "--folds", "[0]", "--seeds"]

    def refused(seeds):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert main([*words, seeds]) == 2
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hms-dist")]
        return line

    assert main([*words, "[5]"]) == 0
    assert main([*words, "[5]"]) == 0
    shutil.rmtree(base / "best")
    shutil.copytree(tmp_path / "run-5/best", base / "best")
    assert re.search("run-5: finished, but .*base/best/model.safetensors changed since; remove that", refused("[5, 6]"))
    shutil.rmtree(base)
    for seeds in ("[5]", "[6]"):
        assert f"init: {base} is not a run folder (no config.yaml); check the path, or restore the run" in refused(
            seeds
        )


def test_patients_are_compared_within_one_data_set():
    hms = ModelRecord(run="a", weights="", shards="", fold=None, num_folds=5, seed=0, patients=frozenset({1, 2}))
    lab = replace(hms, run="b", dataset="lab", patients=frozenset({2, 3}), learnt_from=(hms,))
    assert lab.seen == {2, 3}
    assert lab.seen_of("hms") == {1, 2}
    assert ModelRecord.from_json(lab.to_json()) == lab
    assert "dataset" not in hms.to_json()
    check_unseen("x", [hms], [1], "of a fold", dataset="lab")
    check_unseen("x", [lab], [1], "of a fold", dataset="lab")
    with pytest.raises(
        UserError, match=r"its model b \(no validation fold\) has seen 1 of the 1 patients of a fold, through a"
    ):
        check_unseen("x", [lab], [1], "of a fold", dataset="hms")
