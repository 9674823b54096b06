"""`hms-dist predict` on recordings: a submission that Kaggle accepts, by the recipe of the run, without leftovers."""

import shutil

import edfio
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from pandas.api.types import is_numeric_dtype

from hms_dist.cli import main
from hms_dist.commands import predict as inference
from hms_dist.commands.predict import PredictAny
from hms_dist.config.load import load
from hms_dist.core.signal_format import CHANNELS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.partial_results import Parts, parts_folder
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.results.predictions import read_predictions

COLUMNS = ["eeg_id", "seizure_vote", "lpd_vote", "gpd_vote", "lrda_vote", "grda_vote", "other_vote"]
"""Of the competition's sample_submission.csv."""


def forget():
    """accelerate keeps one state per process; the next run begins like a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def trained(one_epoch, shard_set, tmp_path_factory, edited):
    """A run folder, and no shard set beside it that prediction could peep at."""
    out = shutil.copytree(one_epoch, tmp_path_factory.mktemp("trained") / "run")
    edited(out / "config.yaml", str(shard_set), "gone")
    return out


@pytest.fixture
def kaggle(recordings, tmp_path, rng):
    """A folder as Kaggle's test data: the first 50 seconds of each EEG, its first 10 minutes, no votes."""
    data = tmp_path / "kaggle"
    for kind, num_rows in (("eeg", 10_000), ("spectrogram", 300)):
        (data / f"test_{kind}s").mkdir(parents=True)
        for path in (recordings / f"train_{kind}s").iterdir():
            pd.read_parquet(path).head(num_rows).to_parquet(data / f"test_{kind}s" / path.name)
    table = pd.read_csv(recordings / "train.csv").drop_duplicates("eeg_id")
    table.sample(frac=1, random_state=rng)[["spectrogram_id", "eeg_id", "patient_id"]].to_csv(
        data / "test.csv", index=False
    )
    return data


def predict(*words):
    code = main(["predict", *map(str, words)])
    forget()
    return code


def check_as_kaggle_does(path, test_table):
    """The competition's checks of a submission, reimplemented from its metric's description."""
    submission, wanted = pd.read_csv(path), pd.read_csv(test_table)["eeg_id"]
    assert list(submission) == COLUMNS
    assert submission["eeg_id"].is_unique
    assert set(submission["eeg_id"]) == set(wanted)
    values = submission[COLUMNS[1:]]
    assert all(is_numeric_dtype(values[name]) for name in values)
    assert not values.isna().any(axis=None)
    assert values.min().min() >= 0
    assert values.max().max() <= 1
    assert np.allclose(values.sum(axis=1), 1)
    return submission.set_index("eeg_id").set_axis(list(CLASSES), axis=1)


def test_a_submission_in_one_command_is_that_of_two(trained, kaggle, tmp_path):
    """Rendered by hand with render.yaml, then predicted; the temporary set is gone."""
    out = tmp_path / "submission.csv"
    assert predict("--run", trained, "--data", kaggle, "--out", out, "--tta", "flip") == 0
    found = check_as_kaggle_does(out, kaggle / "test.csv")
    assert not parts_folder(out).exists()
    words = ["--config", str(trained / "render.yaml"), "--data", str(kaggle), "--out", str(tmp_path / "set")]
    render(load(Render, [*words, "--split", "test"]))
    given = ["--run", trained, "--shards", tmp_path / "set", "--out", tmp_path / "two.parquet", "--tta", "flip"]
    assert predict(*given) == 0
    expected = pd.read_parquet(tmp_path / "two.parquet").set_index("eeg_id").loc[found.index, list(CLASSES)]
    assert (found - expected).abs().max(axis=None) < 1e-12


@pytest.mark.slow
def test_two_ranks_submit_what_one_submits(ranks, trained, kaggle, tmp_path):
    """The main rank renders while the other waits; byte for byte."""
    for number, name in ((1, "one"), (2, "two")):
        out = tmp_path / f"{name}.csv"
        ranks(number, "-m", "hms_dist", "predict", "--run", trained, "--data", kaggle, "--out", out)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    check_as_kaggle_does(tmp_path / "two.csv", kaggle / "test.csv")
    assert not parts_folder(tmp_path / "two.csv").exists()


def test_only_the_panels_of_the_canvas_are_rendered(trained, kaggle, tmp_path, monkeypatch):
    rendered = []
    monkeypatch.setattr(inference, "render", lambda command: rendered.append(set(command.panels)) or render(command))
    for tta in ([], ["--tta", "flip"]):
        assert predict("--run", trained, "--data", kaggle, "--out", tmp_path / "s.csv", *tta) == 0
    assert rendered == [{"eeg_spectrogram", "traces"}, {"eeg_spectrogram", "traces", "traces_flipped"}]


def test_training_recordings_can_be_predicted_too(trained, recordings, shard_set, tmp_path):
    words = ["--run", trained, "--out", tmp_path / "p.parquet"]
    assert predict(*words, "--data", recordings, "--split", "train") == 0
    found = pd.read_parquet(tmp_path / "p.parquet").set_index("key")[list(CLASSES)]
    assert predict(*words, "--shards", shard_set) == 0
    expected = pd.read_parquet(tmp_path / "p.parquet").set_index("key")[list(CLASSES)]
    assert (found - expected.loc[found.index]).abs().max(axis=None) < 1e-12


def test_a_kill_between_rendering_and_the_table_costs_neither(trained, kaggle, tmp_path, monkeypatch):
    out = tmp_path / "s.csv"
    words = ["--run", trained, "--data", kaggle, "--out", out]
    real = Parts.write
    with monkeypatch.context() as patch:
        patch.setattr(
            Parts, "write", lambda self, number, outputs: real(self, number, outputs) if number < 2 else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            predict(*words)
        forget()
    (shards,) = parts_folder(out).glob("shards-*")
    before = (shards / "manifest.json").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(*words)
        forget()
    assert (shards / "manifest.json").stat().st_mtime_ns == before
    changed = next((kaggle / "test_eegs").iterdir())
    (pd.read_parquet(changed) * 2).to_parquet(changed)
    assert predict(*words) == 0
    check_as_kaggle_does(out, kaggle / "test.csv")
    first = out.read_bytes()
    assert predict(*words) == 0
    assert out.read_bytes() == first


def test_other_mistakes_are_reported_before_anything_is_rendered(trained, kaggle, recordings, tmp_path, capsys, edited):
    given = ["--run", trained, "--data", kaggle, "--out", tmp_path / "s.csv"]
    run_without = shutil.copytree(trained, tmp_path / "bare")
    (run_without / "render.yaml").unlink()
    flipless = shutil.copytree(trained, tmp_path / "flipless")
    edited(flipless / "canvas.yaml", "flipped_panel: traces_flipped", "flipped_panel: null")
    for words, message in (
        (given[:2] + given[4:], "shards: expected --shards, --data or --recording, one of them, found none"),
        (
            [*given, "--shards", "s"],
            "shards: expected --shards, --data or --recording, one of them, found shards and data",
        ),
        ([*given, "--workers", "0"], "workers: expected at least 1, found 0"),
        ([*given, "--data", recordings, "--split", "train"], "a submission takes one row per EEG, found several"),
        ([*given, "--data", tmp_path], "test.csv"),
        ([*given, "--checkpoint", "step-1"], "no weights 'step-1'; it has: best, final, step-"),
        ([*given, "--run", tmp_path], "not a run folder (no config.yaml); check --run"),
        ([*given, "--run", run_without], "render.yaml: no such file; is this a run folder"),
        ([*given, "--run", flipless, "--tta", "flip"], "tta: no flip of what this run was trained on"),
        ([*given, "--out", tmp_path / "no/s.csv"], "no: no such folder; make it, or choose another --out"),
    ):
        assert predict(*words) == 2, words
        assert message in capsys.readouterr().err
    assert not parts_folder(tmp_path / "s.csv").exists()
    missing = next((kaggle / "test_eegs").iterdir())
    missing.unlink()
    assert predict(*given) == 2
    assert missing.name in capsys.readouterr().err


def test_the_command_line_takes_what_the_readme_shows():
    words = ["--run", "r", "--data", "d", "--out", "s.csv", "--tta", "[flip, reverse]", "--weights", "raw"]
    command = load(PredictAny, words)
    assert (command.tta, command.weights, command.split) == (("flip", "reverse"), "raw", "test")


@pytest.fixture
def night(rng, tmp_path):
    """An EDF file of 70 s, at 250 Hz."""
    signals = [
        edfio.EdfSignal(
            rng.uniform(-50, 50, 70 * 250), 250, label=name, physical_dimension="uV", physical_range=(-99, 99)
        )
        for name in CHANNELS
    ]
    edfio.Edf(signals).write(tmp_path / "night.edf")
    return tmp_path / "night.edf"


def test_one_recording_is_what_import_and_predict_make_of_it(trained, night, tmp_path):
    out = tmp_path / "night.parquet"
    assert predict("--run", trained, "--recording", night, "--out", out, "--every_s", 20) == 0
    assert main(["import", "--data", str(night), "--out", str(tmp_path / "set"), "--labels", "none", "--every_s", "20",
                 "--pictures", "0"]) == 0  # fmt: skip
    assert predict("--run", trained, "--data", tmp_path / "set", "--out", tmp_path / "two.parquet") == 0
    found, expected = pd.read_parquet(out), read_predictions(tmp_path / "two.parquet")
    assert found["time_s"].tolist() == [5, 25, 45, 65]
    expected = expected.sort_values("key").reset_index(drop=True)
    pd.testing.assert_frame_equal(read_predictions(out).drop(columns="time_s"), expected)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [
        "night.edf",
        "night.parquet",
        "set",
        "set.key",
        "two.parquet",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.csv"], "out: a recording gets a row every 10 s: expected a .parquet, which pandas.read_parquet"),
        (["--out", "a.parquet", "--split", "train"], "split: a recording has no labels; leave --split out"),
        (["--out", "a.parquet", "--data", "b"], "one of them, found data and recording"),
        (["--out", "a.parquet", "--map", "x"], "map: expected LABEL=ELECTRODE"),
    ],
)
def test_wrong_options_with_a_recording(trained, night, capsys, words, message):
    assert predict("--run", trained, "--recording", night, *words) == 2
    assert message in capsys.readouterr().err


def test_a_recording_that_cannot_be_read(trained, tmp_path, capsys):
    (tmp_path / "night.edf").write_bytes(b"none")
    wav = "song.wav: the run was trained on eeg (data set hms); expected a name ending in .edf or another that hms-dist"
    for name, message in (
        ("night.edf", "not an EDF or BDF file"),
        ("day.edf", "no such file or folder"),
        ("song.wav", wav),
    ):
        assert predict("--run", trained, "--recording", tmp_path / name, "--out", tmp_path / "a.parquet") == 2
        assert message in capsys.readouterr().err
