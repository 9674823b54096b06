"""The audio simulator: RFCX's statistics of annotations, sounds where the tables have them, the same bytes again."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.datasets import RFCX, Dataset, Submission, read_dataset, write_dataset
from hms_dist.labels.recording_ids import recording_number
from hms_dist.recordings.audio import read_audio
from hms_dist.recordings.audio_simulator.plan import FP_A_TP, plan_clips
from hms_dist.recordings.audio_simulator.species import all_species
from hms_dist.recordings.label_rows import read_rows

BIRDS = Dataset(
    name="birds", classes=("s0", "s1", "s2", "s3", "s4"), target="yes_no", signal="audio", rate_hz=8000, window_s=2.0,
    context_s=2.0, annotated_s=0.5,
    submission=Submission(key="recording_id", column="s{number}", pool="max"),
)  # fmt: skip


def test_annotations_have_the_statistics_of_rfcx() -> None:
    clips = plan_clips(RFCX, 4727, 1992, 60.0, 0)
    boxes = [box for clip in clips for box in clip.boxes]
    true = [box for box in boxes if box.is_there]
    assert abs(len(true) - 1216) < 40
    assert abs((len(boxes) - len(true)) / len(true) / FP_A_TP - 1) < 0.03
    with_true = sum(any(box.is_there for box in clip.boxes) for clip in clips)
    with_false = sum(any(not box.is_there for box in clip.boxes) for clip in clips)
    assert abs(with_true - 1132) < 5
    assert abs(with_false - 3958) < 40
    lengths = [box.species.length_s for box in boxes]
    assert min(lengths) == pytest.approx(0.275)
    assert max(lengths) == pytest.approx(7.925)
    assert np.mean(lengths) == pytest.approx(2.54, abs=0.1)
    counts = np.bincount([box.species.number for box in true], minlength=24)
    assert set(counts) <= {49, 50, 51}
    tests = [clip for clip in clips if clip.split == "test"]
    assert np.mean([len(clip.present) for clip in tests]) == pytest.approx(3, abs=0.15)
    assert np.mean([3 in clip.present for clip in tests]) == pytest.approx(0.9, abs=0.04)
    assert len({clip.name for clip in clips}) == len(clips)
    decoys = [sum(call.is_decoy for call in clip.calls) for clip in clips]
    assert np.mean(decoys[4727:]) == pytest.approx(np.mean(decoys[:4727]), rel=0.15), "test clips have decoys too"


def test_boxes_are_of_species_that_call_there_or_of_none() -> None:
    for clip in plan_clips(RFCX, 60, 5, 60.0, 3):
        assert bool(clip.boxes) == (clip.split == "train")
        for box in clip.boxes:
            calls = [call for call in clip.calls if call.species.number == box.species.number]
            starts = [call.start_s for call in calls if not call.is_decoy]
            assert (box.start_s in starts) if box.is_there else not starts
            assert box.start_s + box.species.length_s <= 60


def test_a_clip_is_louder_in_the_band_of_a_call(tmp_path: Path) -> None:
    folder = simulated(tmp_path / "a", 12)
    calls = pd.read_csv(folder / "calls.csv")
    species, ratios = all_species(BIRDS), []
    for row in calls[(calls["level_db"] > 10) & (calls["is_decoy"] == 0)].to_dict("records"):
        clip = read_audio(folder / row["split"] / f"{row['recording_id']}.flac", 8000).samples[0]
        power = np.abs(np.fft.rfft(clip[round(row["t_min"] * 8000) : round(row["t_max"] * 8000)])) ** 2
        hertz = np.linspace(0, 4000, len(power))
        one = species[row["species_id"]]
        ratios.append(power[(hertz >= one.low_hz) & (hertz < one.high_hz)].sum() / power.sum())
    assert np.median(ratios) > 0.6


def simulated(folder: Path, num_clips: int, *words: str) -> Path:
    folder.mkdir()
    write_dataset(folder, BIRDS)
    description = str(folder / "dataset.yaml")
    audio = ["--audio.clip_s", "3", "--audio.num_test", "3"]
    given = ["--num_recordings", str(num_clips), "--seed", "5", *audio, *words]
    assert main(["simulate", "--dataset", description, "--out", str(folder), *given]) == 0
    return folder


def test_the_same_options_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = simulated(tmp_path / "a", 4), simulated(tmp_path / "b", 4)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 4 + 3 + 6
    for path in files:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path


def test_the_truth_has_the_rows_of_the_tables(tmp_path: Path) -> None:
    folder = simulated(tmp_path / "a", 20)
    dataset = read_dataset(folder)
    assert dataset == BIRDS
    frame = read_rows(folder, "train", dataset).frame
    truth = pd.read_parquet(folder / "truth.parquet")
    assert sorted(truth["eeg_id"] * 1000 + truth["eeg_sub_id"]) == sorted(frame["eeg_id"] * 1000 + frame["eeg_sub_id"])
    joined = frame.merge(truth, on=["eeg_id", "eeg_sub_id"])
    votes = joined[list(dataset.vote_columns)].astype(float).to_numpy()
    known = np.isfinite(votes)
    assert known.sum() == len(frame)
    np.testing.assert_array_equal(votes[known], joined[list(dataset.classes)].to_numpy()[known])
    test = pd.read_csv(folder / "test_truth.csv")
    assert test.columns.tolist() == ["recording_id", "s0", "s1", "s2", "s3", "s4"]
    assert {recording_number(name) for name in test["recording_id"]} == {
        recording_number(path.stem) for path in (folder / "test").iterdir()
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "rfx"], "dataset: unknown 'rfx'; did you mean rfcx? one of: rfcx, or a path"),
        (["--dataset", "rfcx", "--audio.clip_s", "5"], "audio.clip_s: expected at least 10, a row of rfcx; raise it"),
        (["--dataset", "rfcx", "--audio.clip_s", "0"], "clip_s: expected above 0, at most 600, found 0"),
        (["--dataset", "rfcx", "--audio.num_test", "0"], "num_test: expected at least 1, found 0"),
    ],
)
def test_impossible_options_are_refused_in_one_line(tmp_path: Path, capsys, words, message) -> None:
    assert main(["simulate", "--out", str(tmp_path / "a"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_species_of_a_slow_data_set_are_within_its_band() -> None:
    slow = dataclasses.replace(BIRDS, rate_hz=4000)
    assert max(one.high_hz for one in all_species(slow)) <= 2000
