"""Clips and tables of annotations: what they give, and what is wrong with them in one line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset, Submission
from hms_dist.labels.recording_ids import recording_name, recording_number
from hms_dist.recordings.annotations import window_starts
from hms_dist.recordings.audio import AudioReader, AudioRecording, read_audio
from hms_dist.recordings.label_rows import read_rows

RATE_HZ = 8000
BIRDS = Dataset(
    name="birds", classes=("s0", "s1", "s2"), target="yes_no", signal="audio", rate_hz=RATE_HZ, window_s=2.0,
    context_s=2.0, annotated_s=0.5,
    submission=Submission(key="recording_id", column="s{number}", pool="max"),
)  # fmt: skip
HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
TP = "00000000a,0,1,0.1,100,0.5,900\n00000000a,2,4,2.4,100,2.9,900\n0fffffff1,1,1,1.2,100,1.6,900\n"
FP = "00000000a,1,1,1.4,100,1.8,900\n0fffffff1,0,1,0.2,200,0.4,900\n"


@pytest.fixture
def tone() -> Callable[[Path, float, int, int], None]:
    """Writes `seconds` of a tone of 500 Hz, the left channel twice as loud as the right."""

    def write(path: Path, seconds: float = 3.0, rate_hz: int = RATE_HZ, channels: int = 1) -> None:
        time_s = np.arange(round(seconds * rate_hz)) / rate_hz
        samples = np.stack([0.2 / (1 + n) * np.sin(2 * np.pi * 500 * time_s) for n in range(channels)], axis=1)
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, rate_hz, subtype="PCM_16")

    return write


@pytest.fixture
def clips(tmp_path: Path, tone) -> Path:
    """train_tp.csv, train_fp.csv, two training clips and two test clips of 3 and 4.5 s."""
    (tmp_path / "train_tp.csv").write_text(HEADER + TP)
    (tmp_path / "train_fp.csv").write_text(HEADER + FP)
    tone(tmp_path / "train/00000000a.flac")
    tone(tmp_path / "train/0fffffff1.wav")
    tone(tmp_path / "test/000000001.flac")
    tone(tmp_path / "test/000000002.flac", 4.5)
    return tmp_path


def test_names_and_numbers_of_recordings_are_one_to_one(rng: np.random.Generator) -> None:
    names = ["0", "00", "a", "00204008d", "f" * 15, "0" * 15]
    names += [f"{value:09x}" for value in rng.integers(0, 16**9, 50)]
    numbers = [recording_number(name) for name in names]
    assert [recording_name(number) for number in numbers] == names
    assert len(set(numbers)) == len(set(names))
    assert max(numbers) < 2**63
    for bad in ("", "g", "A", "f" * 16, "0x1"):
        with pytest.raises(ValueError, match="expected 1 to 15 hexadecimal digits"):
            recording_number(bad)
    for number in (-1, 0, 0x2A, 16**16):
        with pytest.raises(ValueError, match="expected the number of a recording of audio"):
            recording_name(number)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 2 * RATE_HZ, 11025])
@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_clips_of_any_rate_and_any_channels_are_one_channel_at_the_rate(tmp_path, tone, rate_hz, suffix) -> None:
    tone(tmp_path / f"a.{suffix}", 2.0, rate_hz, 2)
    found = read_audio(tmp_path / f"a.{suffix}", RATE_HZ)
    assert found.samples.shape == (1, 2 * RATE_HZ)
    assert found.samples.dtype == np.float32
    expected = 0.15 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE_HZ) / RATE_HZ)
    inner = slice(200, -200)  # filters of another rate start up at the ends
    np.testing.assert_allclose(found.samples[0, inner], expected[inner], atol=1e-3)


def test_windows_beyond_the_ends_are_zero() -> None:
    clip = AudioRecording(name="a", samples=np.arange(1, 5, dtype=np.float32)[None], rate_hz=RATE_HZ)
    np.testing.assert_array_equal(clip.cut(-2, 6), [[0, 0, 1, 2, 3, 4, 0, 0]])
    np.testing.assert_array_equal(clip.cut(1, 3), [[2, 3]])
    np.testing.assert_array_equal(clip.cut(7, 9), [[0, 0]])


def test_a_reader_reads_a_clip_once_for_rows_that_share_it(clips) -> None:
    reader = AudioReader(clips, "train", RATE_HZ)
    one = reader.read(recording_number("00000000a"))
    assert reader.read(recording_number("00000000a")) is one
    assert one.name == "00000000a"
    assert re.fullmatch(r"\d+-[0-9a-f]{8}", reader.fingerprints[recording_number("00000000a")])


def test_rows_know_their_own_species_and_are_moved_inwards(clips) -> None:
    labels = read_rows(clips, "train", BIRDS)
    frame = labels.frame
    votes = frame[list(BIRDS.vote_columns)].astype(float).to_numpy()
    nan = np.nan
    np.testing.assert_array_equal(votes, [[1, nan, nan], [nan, nan, 1], [nan, 1, nan], [nan, 0, nan], [0, nan, nan]])
    np.testing.assert_allclose(frame["eeg_label_offset_seconds"], [0, 1, 0.4, 0.6, 0])
    assert frame["eeg_sub_id"].tolist() == [0, 1, 0, 2, 1]
    assert frame["songtype_id"].tolist() == [1, 4, 1, 1, 1]
    assert (frame["patient_id"] == frame["eeg_id"]).all()
    assert [labels.where(row) for row in (0, 2, 3)] == [
        f"{clips}/train_tp.csv: row 2", f"{clips}/train_tp.csv: row 4", f"{clips}/train_fp.csv: row 2",
    ]  # fmt: skip


def test_a_longer_clip_changes_the_fingerprint_of_the_rows(clips, tone) -> None:
    before = read_rows(clips, "train", BIRDS).fingerprint
    assert read_rows(clips, "train", BIRDS).fingerprint == before
    tone(clips / "train/00000000a.flac", 5.0)
    assert read_rows(clips, "train", BIRDS).fingerprint != before


def test_test_clips_are_covered_by_windows(clips) -> None:
    frame = read_rows(clips, "test", BIRDS).frame
    assert frame["eeg_label_offset_seconds"].tolist() == [0, 1, 0, 1, 2, 2.5]
    assert [recording_name(number) for number in frame["eeg_id"].unique()] == ["000000001", "000000002"]
    assert frame[list(BIRDS.vote_columns)].isna().all(axis=None)
    assert window_starts(2.0, BIRDS) == [0]
    assert window_starts(1.0, BIRDS) == [0]


def test_without_false_positives_no_absence_is_known(clips, caplog) -> None:
    (clips / "train_fp.csv").unlink()
    frame = read_rows(clips, "train", BIRDS).frame
    assert np.nanmin(frame[list(BIRDS.vote_columns)].astype(float)) == 1
    assert "train_fp.csv: no such file; no species is known to be absent" in caplog.text


TABLES = {
    "a column is missing": ("tp", HEADER.replace("t_min", "begin") + TP, "train_tp.csv: column t_min is missing"),
    "no rows": ("fp", HEADER, "train_fp.csv: no rows; expected at least one annotation"),
    "an empty file": ("tp", "", "train_tp.csv: the file is empty; expected a table of annotations"),
    "semicolons": ("tp", (HEADER + TP).replace(",", ";"), "columns are separated by semicolons"),
    "a name that is not hexadecimal": (
        "tp", HEADER + "00000000z,0,1,0.1,1,0.5,9\n",
        "train_tp.csv: row 2, column recording_id: expected 1 to 15 hexadecimal digits (0-9, a-f), found '00000000z'",
    ),
    "an unknown species": (
        "tp", HEADER + TP + "00000000a,3,1,0.1,1,0.5,9\n",
        "train_tp.csv: row 5, column species_id: expected 0 to 2, the classes of birds, found '3'",
    ),
    "a species in letters": ("fp", HEADER + "00000000a,owl,1,0.1,1,0.5,9\n", "species_id: expected a number"),
    "a negative time": ("tp", HEADER + "00000000a,0,1,-1,1,0.5,9\n", "row 2, column t_min: expected a number of at"),
    "a time that is NaN": ("tp", HEADER + "00000000a,0,1,nan,1,0.5,9\n", "column t_min: expected a number"),
    "an end before the start": (
        "tp", HEADER + "00000000a,0,1,0.5,1,0.5,9\n", "row 2, column t_max: expected more than t_min (0.5), found '0.5'"
    ),
    "no band": ("tp", HEADER + "00000000a,0,1,0.1,9,0.5,1\n", "row 2, column f_max: expected more than f_min (9)"),
    "a box after the end": (
        "fp", HEADER + FP + "00000000a,1,1,2.5,1,3.5,9\n",
        "train_fp.csv: row 4: t_max 3.5, recording 00000000a ends at 3 s",
    ),
    "a contradiction": (
        "fp", HEADER + FP + TP.splitlines()[2] + "\n",
        "train_fp.csv: row 4: train_tp.csv has the same box of species 1 in recording 0fffffff1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_table_is_refused_in_one_line(clips: Path, name: str) -> None:
    kind, text, message = TABLES[name]
    (clips / f"train_{kind}.csv").write_text(text)
    with pytest.raises(UserError) as refusal:
        read_rows(clips, "train", BIRDS)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def nothing(path: Path) -> None:
    path.unlink()


def both(path: Path) -> None:
    path.with_suffix(".wav").write_bytes(path.read_bytes())


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("not audio")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros((0, 1)), RATE_HZ)


def vorbis(path: Path) -> None:
    soundfile.write(path.with_suffix(".ogg"), np.zeros(3 * RATE_HZ), RATE_HZ)
    path.with_suffix(".ogg").rename(path)


def odd_rate(path: Path) -> None:
    soundfile.write(path, np.zeros(3 * 7919), 7919)


def not_a_number(path: Path) -> None:
    path.unlink()
    samples = np.zeros(3 * RATE_HZ)
    samples[17] = np.nan
    soundfile.write(path.with_suffix(".wav"), samples, RATE_HZ, subtype="FLOAT")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CLIPS = {
    nothing: "00000000a.flac: no such file, nor .wav",
    both: "00000000a.wav: 00000000a.flac is there too; expected one file per recording",
    empty: "00000000a.flac: the file is empty; expected flac or wav",
    text: "00000000a.flac: not a readable flac or wav file",
    cut_off: "00000000a.flac: ",
    flipped: "00000000a.flac: ",
    no_samples: "00000000a.flac: ",
    vorbis: "00000000a.flac: not a readable flac or wav file (a OGG file)",
    odd_rate: "00000000a.flac: has 7919 Hz, whose ratio to 8000 Hz is 8000/7919",
    not_a_number: "00000000a.wav: sample 17: expected finite numbers, found [nan]",
    folder: "00000000a.flac: cannot read this file",
}


@pytest.mark.parametrize("damage", CLIPS, ids=lambda damage: damage.__name__)
def test_a_damaged_clip_is_refused_in_one_line(clips: Path, damage) -> None:
    damage(clips / "train/00000000a.flac")
    with pytest.raises(UserError) as refusal:
        AudioReader(clips, "train", RATE_HZ).read(recording_number("00000000a"))
    assert str(refusal.value).startswith(f"{clips}/train/{CLIPS[damage]}")
    assert "\n" not in str(refusal.value)
    read_rows(clips, "train", BIRDS)  # `render` reports it by its row


def test_more_samples_than_allowed_are_not_decoded(clips: Path, monkeypatch) -> None:
    monkeypatch.setattr(limits, "AUDIO_SAMPLES", 3 * RATE_HZ - 1)
    with pytest.raises(UserError, match="24000 samples of 1 channels; expected at most 23999; cut it into parts"):
        AudioReader(clips, "train", RATE_HZ).read(recording_number("00000000a"))


def test_folders_without_clips_are_refused(clips: Path) -> None:
    for path in (clips / "test").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"test: no recordings; expected <recording_id>.flac or .wav"):
        read_rows(clips, "test", BIRDS)
    (clips / "test").rmdir()
    with pytest.raises(UserError, match="test: no such folder"):
        read_rows(clips, "test", BIRDS)
    (clips / "train").rename(clips / "elsewhere")
    with pytest.raises(UserError, match="train: no such folder"):
        read_rows(clips, "train", BIRDS)
    with pytest.raises(UserError, match="table: the rows of audio are those of"):
        read_rows(clips, "train", BIRDS, clips / "mine.csv")
