"""Recordings for the tests of import: EEG with a known answer, written by edfio."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import edfio
import numpy as np
import pandas as pd
import pytest

from hms_dist.core.signal_format import CHANNELS

EEG_LABELS = tuple(f"EEG {name.upper()}-REF" for name in CHANNELS[:-1])
LABELS = (*EEG_LABELS, "ECG EKG")
STEP_UV = 0.1
"""Digital step of the files."""


def write_edf(
    path: Path,
    signals: Sequence[np.ndarray],
    rates_hz: float | Sequence[float] = 200,
    labels: Sequence[str] = LABELS,
    *,
    dimension: str = "uV",
    annotations: Sequence[tuple[float, float | None, str]] | None = (),
    record_s: float | None = None,
    starttime: datetime.time | None = None,
    patient: edfio.Patient | None = None,
    kind: str = "edf",
    inverted: bool = False,
) -> Path:
    """Write microvolts as EDF+ (EDF without annotations if None), or BDF, of a digital step of STEP_UV."""
    rates = [rates_hz] * len(labels) if np.isscalar(rates_hz) else rates_hz
    scale = {"uV": 1, "mV": 1e-3, "V": 1e-6, "nV": 1e3}.get(dimension, 1)
    most = (32767 if kind == "edf" else 8388607) * STEP_UV * scale
    make, whole = (edfio.EdfSignal, edfio.Edf) if kind == "edf" else (edfio.BdfSignal, edfio.Bdf)
    limits = (-round(most, 6), round(most, 6))
    if kind == "edf" and dimension in ("V", "nV"):  # fields of 8 characters
        limits = (-0.00328, 0.00328) if dimension == "V" else (-3276700, 3276700)
    made = [
        make(
            np.asarray(values) * scale, rate, label=label, physical_dimension=dimension,
            physical_range=limits[::-1] if inverted else limits,
        )
        if not inverted
        else _inverted(np.asarray(values) * scale, rate, label, dimension, limits)
        for values, rate, label in zip(signals, rates, labels, strict=True)
    ]  # fmt: skip
    notes = None if annotations is None else [edfio.EdfAnnotation(*one) for one in annotations]
    whole(
        made, annotations=notes, data_record_duration=record_s, starttime=starttime, patient=patient,
        recording=edfio.Recording(startdate=datetime.date(2019, 3, 4)),
    ).write(path)  # fmt: skip
    return path


def _inverted(values, rate, label, dimension, limits):
    """A signal whose physical minimum is the larger one."""
    digital = np.rint(-values / limits[1] * 32767).astype(np.int16)
    signal = edfio.EdfSignal.from_digital(
        digital, rate, label=label, physical_dimension=dimension, physical_range=limits, digital_range=(-32767, 32767)
    )
    signal._physical_min, signal._physical_max = signal._physical_max, signal._physical_min
    return signal


def with_gaps(path: Path, onsets_s: Sequence[float]) -> Path:
    """Turn an EDF+C file into EDF+D whose records begin at `onsets_s`; its annotations must be wide enough."""
    content = bytearray(path.read_bytes())
    num_signals = int(content[252:256])
    field = 256 + 216 * num_signals
    samples = [int(content[field + 8 * number : field + 8 * number + 8]) for number in range(num_signals)]
    header, record = 256 * (num_signals + 1), 2 * sum(samples)
    content[192:197] = b"EDF+D"
    for number, onset in enumerate(onsets_s):
        place = header + number * record + 2 * sum(samples[:-1])
        old = bytes(content[place : place + 2 * samples[-1]])
        new = re.sub(rb"^\+[0-9.]+", f"+{onset:.12g}".encode(), old)
        assert len(new.rstrip(b"\0")) < len(old)
        content[place : place + 2 * samples[-1]] = new.rstrip(b"\0").ljust(len(old), b"\0")
    path.write_bytes(content)
    return path


def band_limited(rng: np.random.Generator, length_s: float, rate_hz: float, low_hz=0.5, high_hz=40.0):
    """Return `signal(rate)`: 20 channels of sums of sinusoids in a band, exact at any rate."""
    count = 10
    hertz = np.exp(rng.uniform(np.log(low_hz), np.log(high_hz), (len(CHANNELS), count)))
    phases = rng.uniform(0, 2 * np.pi, (len(CHANNELS), count))
    sizes = 20 / np.sqrt(hertz) / np.sqrt(count) * 3

    def signal(rate: float) -> np.ndarray:
        times = np.arange(round(length_s * rate)) / rate
        return np.stack(
            [
                (sizes[n][:, None] * np.sin(2 * np.pi * hertz[n][:, None] * times + phases[n][:, None])).sum(0)
                for n in range(len(CHANNELS))
            ]
        )

    return signal


@pytest.fixture
def eeg(rng):
    """`eeg(length_s)(rate)`: band-limited EEG at any rate."""
    return lambda length_s, **band: band_limited(rng, length_s, 200, **band)


@pytest.fixture
def read_eegs():
    """Reads the EEGs of an imported set: eeg_id -> [20, samples]."""

    def read(out: Path, split: str = "train") -> dict[int, np.ndarray]:
        return {
            int(path.stem): pd.read_parquet(path)[list(CHANNELS)].to_numpy().T
            for path in sorted((out / f"{split}_eegs").glob("*.parquet"))
        }

    return read


@pytest.fixture(scope="session")
def files() -> SimpleNamespace:
    """Functions that write the files of the tests, and their labels and digital step."""
    return SimpleNamespace(write=write_edf, with_gaps=with_gaps, labels=LABELS, step_uv=STEP_UV)
