"""The course report's final ensemble: its chain checked as packaged, and run from recordings to the submission,
small."""

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.cli import main
from hms_dist.cluster.pipeline import Pipeline, run
from hms_dist.cluster.pipeline_spec import tasks_of
from hms_dist.config.load import load
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.results.predictions import read_predictions

MODELS = ("b0", "b1_tuned", "generated")


@pytest.fixture
def data(recordings, tmp_path):
    """Half of the recordings as a folder with a test set: the beginning of three of their EEGs, without votes."""
    folder = tmp_path / "data"
    folder.mkdir()
    for kind in ("eegs", "spectrograms"):
        for split in ("train", "test"):
            (folder / f"{split}_{kind}").symlink_to(recordings / f"train_{kind}")
    table = pd.read_csv(recordings / "train.csv")
    table = table[table["patient_id"].isin(table["patient_id"].unique()[:4])]
    table.to_csv(folder / "train.csv", index=False)
    names = ["spectrogram_id", "eeg_id", "patient_id"]
    table.drop_duplicates("eeg_id")[names].head(3).to_csv(folder / "test.csv", index=False)
    return folder


@pytest.fixture
def here(repository, monkeypatch):
    """Runs in the checkout, whose files the chain names."""
    monkeypatch.chdir(repository)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield repository
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


def test_the_words_of_every_step_are_taken(here, data, tmp_path, capsys):
    words = ["--config", "configs/pipeline/seed_003.yaml", "--data", str(data), "--out", str(tmp_path / "out")]
    run(load(Pipeline, [*words, "--list"]))
    steps = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert steps == [
        "group", "render", "verify", "test", *MODELS, *(f"predict_{model}" for model in MODELS),
        "submission", "oof", "ensemble", "score", "report",
    ]  # fmt: skip
    (submission,) = tasks_of(load(Pipeline, words))["submission"]
    assert sum(word.endswith(".parquet") for word in submission.words) == 15, "three models of five folds"


@pytest.mark.slow
def test_three_models_become_a_submission(here, data, tmp_path, launcher):
    """A fold of a small net instead of each; their plain mean, by hand."""
    chain = (here / "configs/pipeline/seed_003.yaml").read_text()
    small = '"small"], "options": {{"num_folds": 2, "epochs": 1, "global_batch": 2}}'
    chain = chain.replace(', "options": {{"model.name": "tf_efficientnet_b0"}}', "")
    for name in ("", "_tuned", "_generated"):
        chain = chain.replace(f'"seed_003{name}"]', f'"seed_003{name}", {small}')
    (tmp_path / "chain.yaml").write_text(chain.replace("fold: [0, 1, 2, 3, 4]", "fold: [0]"))
    out = tmp_path / "out"
    config = load(Pipeline, ["--config", str(tmp_path / "chain.yaml"), "--data", str(data), "--out", str(out)])
    tasks = tasks_of(config)
    for task in (task for step in list(tasks)[: list(tasks).index("oof")] for task in tasks[step]):
        task.makes.parent.mkdir(parents=True, exist_ok=True)
        launch = [f"--launch.words={launcher}"] if task.words[0] == "grid" else []
        assert main([*(word.replace("{cpus}", "1") for word in task.words), *launch]) == 0, task.title
        AcceleratorState._reset_state(reset_partial_state=True)
        assert task.makes.exists()
    members = [read_predictions(out / f"predictions/{model}-fold-0.parquet") for model in MODELS]
    expected = sum(member.set_index("eeg_id")[list(CLASSES)] for member in members) / 3
    submission = read_predictions(out / "submission.csv").set_index("eeg_id")
    assert sorted(submission.index) == sorted(pd.read_csv(data / "test.csv")["eeg_id"])
    pd.testing.assert_frame_equal(submission[list(CLASSES)], expected.loc[submission.index])
    assert len({tuple(member[list(CLASSES)].iloc[0]) for member in members}) == 3, "of different models"
