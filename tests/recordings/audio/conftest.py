"""A folder of two clips in the competition's layout, which tests damage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hms_dist.datasets import Dataset, Submission

RATE_HZ = 8000
BIRDS = Dataset(
    name="birds", classes=("s0", "s1", "s2"), target="yes_no", signal="audio", rate_hz=RATE_HZ, window_s=2.0,
    context_s=2.0, annotated_s=0.5, test_step_s=1.0,
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
