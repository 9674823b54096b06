"""Rows of audio as the renderer reads them: window, fingerprints, quality, and clips that are too short."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.recordings.label_rows import read_rows
from hms_dist.rendering.row_source import index_fields, open_source, recording_files

BIRDS = Dataset(
    name="birds", classes=("s0", "s1"), target="yes_no", signal="audio", rate_hz=8000, window_s=2.0, context_s=2.0,
    annotated_s=0.5,
)  # fmt: skip
RATE_HZ = BIRDS.rate_hz


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A clip of 3 s with two annotations, one of 1.5 s without."""
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
    soundfile.write(tmp_path / "train/0a.flac", rng.uniform(-0.5, 0.5, 3 * RATE_HZ), RATE_HZ, subtype="PCM_16")
    soundfile.write(tmp_path / "test/0b.wav", np.zeros(RATE_HZ * 3 // 2), RATE_HZ, subtype="PCM_16")
    header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    (tmp_path / "train_tp.csv").write_text(f"{header}0a,0,1,2.5,100,2.9,900\n")
    (tmp_path / "train_fp.csv").write_text(f"{header}0a,1,4,1.0,100,1.5,900\n")
    return tmp_path


def test_a_row_has_its_window_box_and_fingerprint(clips: Path) -> None:
    source, labels = open_source(clips, "train", BIRDS), read_rows(clips, "train", BIRDS)
    samples, _ = soundfile.read(clips / "train/0a.flac", dtype="float32")
    for row, (start_s, votes) in enumerate([(1.0, [1, None]), (0.25, [None, 0])]):
        fields = index_fields(labels.frame.iloc[row].to_dict(), BIRDS)
        assert [fields[name] for name in BIRDS.vote_columns] == votes
        assert fields["key"] == f"{0x10A}-{row}"
        assert fields["t_min"] == (2.5, 1.0)[row]
        assert fields["songtype_id"] == (1, 4)[row]
        window = source.window(source.read(fields), fields)
        first = round(start_s * RATE_HZ)
        np.testing.assert_array_equal(window.samples(), samples[None, first : first + 2 * RATE_HZ])
        margin = window.samples(100)
        assert margin.shape == (1, 2 * RATE_HZ + 200)
        np.testing.assert_array_equal(margin[:, 100:-100], window.samples())
        assert (margin[0, -100:] == 0).all() == (row == 0), "zeros after the end of the clip"
        quality, _, wrong_scale = source.quality(window)
        assert quality["peak"] == pytest.approx(np.abs(window.samples()).max(), abs=1e-6)
        assert quality["rms"] == pytest.approx(0.5 / np.sqrt(3), rel=0.05)
        assert wrong_scale is None
        size = (clips / "train/0a.flac").stat().st_size
        one, other = source.fingerprints(fields).values()
        assert one == other
        assert one.startswith(f"{size}-")
    assert recording_files(clips, "train", labels.frame, BIRDS) == {("eeg", 0x10A): clips / "train/0a.flac"}


def test_a_clip_shorter_than_a_row_is_refused_in_one_line(clips: Path) -> None:
    source, labels = open_source(clips, "test", BIRDS), read_rows(clips, "test", BIRDS)
    assert len(labels.frame) == 1
    fields = index_fields(labels.frame.iloc[0].to_dict(), BIRDS)
    assert fields["t_min"] is None
    with pytest.raises(UserError, match=r"^recording 0b is 1\.50 s long, the row needs 0\.00 to 2\.00 s; remove its"):
        source.window(source.read(fields), fields)
    assert labels.where(0) == str(clips / "test")
