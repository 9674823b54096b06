"""Importing a recording of a day takes at most 1.2 times the memory of one of an hour."""

import io
import os
import subprocess
import sys
from pathlib import Path

import edfio
import numpy as np
import pytest

RATE_HZ = 256
LIMIT = 1.2
PEAK = """
import resource, sys
from hms_dist.cli import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_hours(path: Path, hours: int, labels, rng) -> None:
    """Write noise hour by hour, because edfio would hold the whole recording in memory."""
    signals = [edfio.EdfSignal(np.zeros(RATE_HZ), RATE_HZ, label=label, physical_dimension="uV",
                               physical_range=(-3276.8, 3276.7)) for label in labels]  # fmt: skip
    buffer = io.BytesIO()
    edfio.Edf(signals).write(buffer)
    header = buffer.getvalue()[: 256 * (len(labels) + 1)]
    hour = np.clip(np.cumsum(rng.normal(0, 20, (3600, len(labels), RATE_HZ)), axis=2), -32000, 32000).astype("<i2")
    with path.open("wb") as file:
        file.write(header[:236] + str(hours * 3600).encode().ljust(8) + header[244:])
        for number in range(hours):
            file.write(np.roll(hour, number, axis=0).tobytes())


@pytest.mark.long
def test_a_day_takes_no_more_memory_than_an_hour(files, rng, tmp_path, repository) -> None:
    peaks = {}
    for hours in (1, 24):
        path = tmp_path / f"{hours}.edf"
        write_hours(path, hours, files.labels, rng)
        words = ["import", "--data", path, "--labels", "none", "--out", tmp_path / f"out-{hours}", "--pictures", "0"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, words)], check=True, capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
        )  # fmt: skip
        peaks[hours] = int(done.stdout.split()[-1])
        path.unlink()
    assert peaks[24] <= LIMIT * peaks[1], peaks
