"""Rendering speed of panels compared with peers.

python scripts/bench/render.py [--data DIR] [--rounds N] [--cases NAME ...] [--json FILE]. One process, one thread,
candidates in turns, medians of processor time. The peers come with the extra `bench` (pip install -e '.[bench]'), and
fCWT needs Debian's libfftw3-single3; those that are not installed are skipped and reported. Recordings are simulated
unless --data names a folder in Kaggle's layout. Exits with 1 if a target is missed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peers
import pyarrow as pa
from rounds import Case, machine, measure, missed, table, write_json
from threadpoolctl import threadpool_limits

from hms_dist.core.signal_format import WINDOW_SAMPLES
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.panels.rasteriser import draw_traces
from hms_dist.panels.scalogram import Scalogram
from hms_dist.panels.wavelet_statistics import WaveletStatistics
from hms_dist.recordings.reader import RecordingReader, read_eeg
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render_shard import render_sample
from hms_dist.rendering.row_source import EegSource, window_of
from hms_dist.shards.writer import Sample
from hms_dist.signals.haar import haar_statistics

PACKAGES = ("numpy", "scipy", "numba", "pandas", "pyarrow", "librosa", "PyWavelets", "justpyplot", "pillow")
FORMS = {
    "16th place": EegSpectrogram(),
    "public baseline": EegSpectrogram(window_samples=128, fft_samples=1024, hop_samples=39, centred=True),
}


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="folder with train.csv, train_eegs, train_spectrograms")
    words.add_argument("--num_recordings", type=int, default=8, help="simulated recordings, without --data")
    words.add_argument("--rounds", type=int, help="times that every candidate is measured (default: 3 to 51)")
    words.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="what is measured")
    words.add_argument("--json", type=Path, help="file to write what was measured to")
    return words


def main() -> int:
    options = parser().parse_args()
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        data = options.data or simulated(Path(folder) / "data", options.num_recordings)
        found = material(data)
        chosen = [case for name in options.cases for case in CASES[name](found)]
        if options.rounds:
            chosen = [replace(case, rounds=options.rounds) for case in chosen]
        results = [measure(case) for case in chosen]
        compiling = first_use(Path(folder))
    facts: dict[str, Any] = {"machine": machine(PACKAGES), "results": results, "first_use": compiling}
    print(f"{facts['machine']['processor']}, 1 thread, medians of alternating rounds, processor time\n")
    print(table(results))
    print(f"\nFirst sample of the default panels: {compiling['compiled_s']:.1f} s with compiling, once a machine;")
    print(f"{compiling['cached_s']:.2f} s in every later process, which loads the compiled code from the disk.")
    if options.json:
        write_json(options.json, facts)
    return int(missed(results))


def simulated(folder: Path, num_recordings: int) -> Path:
    """Simulated EEGs in Kaggle's layout."""
    simulate(Simulate(out=folder, num_recordings=num_recordings, seed=11))
    return folder


@dataclass(frozen=True)
class Material:
    """Input of the work."""

    data: Path
    rows: list[dict[str, Any]]
    """Label rows."""
    eeg: np.ndarray
    """The window of the first."""


def material(data: Path) -> Material:
    """Label rows of a folder in Kaggle's layout."""
    rows = rows_of(data)
    recording = RecordingReader(data).read(rows[0]["eeg_id"], rows[0]["spectrogram_id"])
    return Material(data, rows, recording.eeg[window_of(recording, rows[0]).start :][:WINDOW_SAMPLES])


def rows_of(data: Path) -> list[dict[str, Any]]:
    """The first label row of each of eight recordings, all of whose channels were recorded (so the peers run)."""
    rows = []
    for fields in pd.read_csv(data / "train.csv").drop_duplicates("eeg_id").to_dict("records"):
        if np.isfinite(read_eeg(data / f"train_eegs/{fields['eeg_id']}.parquet")).any(axis=0).all():
            rows.append({**{str(name): value for name, value in fields.items()}, "key": "row"})
    if not rows:
        raise SystemExit(f"{data}: every EEG lacks a channel; choose another folder")
    return rows[:8]


def traces(given: Material) -> list[Case]:
    """20 filtered traces as a picture of 640 x 1600; the very same pixels."""
    levels = peers.trace_levels(given.eeg[3000:7000])
    ours = partial(draw_traces, levels, peers.BAND_ROWS, peers.WIDTH)
    plotted = partial(peers.draw_traces, levels)

    def check() -> None:
        np.testing.assert_array_equal(ours(), plotted())

    name, needs = "trace picture", {"justpyplot": ("justpyplot",)}
    return [
        Case(name=name, ours=ours, peers={"justpyplot": plotted}, needs=needs, targets={"justpyplot": 150}, check=check)
    ]


def eeg_spectrograms(given: Material) -> list[Case]:
    """Both published forms."""
    return [eeg_spectrogram(given.eeg, form) for form in FORMS]


def eeg_spectrogram(eeg: np.ndarray, form: str) -> Case:
    """The EEG spectrogram of the four chains; 1e-4 of a picture of -1 to 1."""
    ours, librosa = partial(FORMS[form].decibel, eeg), partial(peers.eeg_spectrogram, eeg, form)

    def check() -> None:
        np.testing.assert_allclose(ours() / 40, librosa() / 40, atol=1e-4)

    name = f"EEG spectrogram, {form}"
    targets, needs = {"librosa": 10}, {"librosa": ("librosa",)}
    return Case(name=name, ours=ours, peers={"librosa": librosa}, needs=needs, targets=targets, check=check)


def wavelet_statistics(given: Material) -> list[Case]:
    """Haar statistics of sliding windows and of the whole 50 seconds."""
    signals = peers.differences(given.eeg)
    sliding, whole = WaveletStatistics(), WaveletStatistics(window_samples=WINDOW_SAMPLES, num_windows=1)
    return [
        statistics(signals, sliding, "wavelet statistics, 256 windows of 2 s", rounds=3),
        statistics(signals, whole, "wavelet statistics, one window of 50 s", rounds=51),
    ]


def scalogram(given: Material) -> list[Case]:
    """16 signals, 64 scales, 256 columns. Peers take the columns' middles from their transform at every sample, which
    costs them least; ours are means over the columns. Compared where both are dense, 2 % of the largest value.
    """
    signals, panel, slow = peers.differences(given.eeg), Scalogram(), Scalogram(max_hz=10.0, num_columns=10_000)
    rows_hz = np.array(panel.rows_hz)
    columns = np.rint((np.arange(256) + 0.5) * signals.shape[1] / 256 - 0.5).astype(int)
    ours = partial(panel.decibel, signals.reshape(4, 4, -1))
    others = {
        f"pywt.cwt {method}": partial(peers.scalogram_pywt, signals, rows_hz, columns, panel.num_cycles, method)
        for method in ("conv", "fft")
    }
    others["fCWT"] = partial(peers.scalogram_fcwt, signals, rows_hz, columns)

    def check() -> None:
        found = 10 ** (slow.decibel(signals.reshape(4, 4, -1)) / 20)
        every = np.arange(signals.shape[1])
        expected = peers.scalogram_pywt(signals, np.array(slow.rows_hz), every, slow.num_cycles, "fft").clip(0.1, 1000)
        assert np.abs(found - expected)[..., 2500:-2500].max() < 0.02 * expected.max()

    targets, needs = {"pywt.cwt conv": 100, "pywt.cwt fft": 30, "fCWT": 6}, {"fCWT": ("fcwt",)}
    return [Case(name="scalogram", ours=ours, peers=others, needs=needs, targets=targets, check=check, rounds=5)]


def statistics(signals: np.ndarray, panel: WaveletStatistics, name: str, *, rounds: int) -> Case:
    """Mean and standard deviation of each level of 16 channels."""
    ours = partial(haar_statistics, signals, panel.starts, panel.window_samples)
    pywt = partial(peers.wavelet_statistics, signals, panel.starts, panel.window_samples)

    def check() -> None:
        np.testing.assert_allclose(ours(), pywt(), rtol=1e-9, atol=1e-9)

    return Case(name=name, ours=ours, peers={"pywt": pywt}, targets={"pywt": 10}, check=check, rounds=rounds)


def records(given: Material) -> list[Case]:
    """Label rows from their parquet files to encoded members: default panels, both flips; the peer one flip."""

    def ours() -> list[Sample]:
        return [rendered(given.data, fields) for fields in given.rows]

    def chain() -> list[bytes]:
        return [peers.record(given.data, fields) for fields in given.rows]

    def check() -> None:
        assert all(set(sample.members) == {"json", *DEFAULT_PANELS} for sample in ours())
        assert all(png.startswith(b"\x89PNG") for png in chain())

    peer = "pandas + librosa + justpyplot + Pillow PNG"
    return [
        Case(
            name="one record, parquet to encoded",
            ours=ours,
            peers={peer: chain},
            needs={peer: ("librosa", "justpyplot")},
            targets={peer: 15},
            check=check,
            rounds=5,
            items=len(given.rows),
        )
    ]


CASES: dict[str, Callable[[Material], list[Case]]] = {
    "traces": traces,
    "eeg_spectrograms": eeg_spectrograms,
    "scalogram": scalogram,
    "wavelet_statistics": wavelet_statistics,
    "record": records,
}
"""Kinds of work by name."""


def rendered(data: Path, fields: dict[str, Any]) -> Sample:
    """Render a row without caches from an earlier one: both files are read, the recording prepared, every panel drawn
    and encoded."""
    source = EegSource(data, "train")
    recording = source.read(fields)
    prepared = {name: panel.prepare(recording) for name, panel in DEFAULT_PANELS.items()}
    return render_sample(DEFAULT_PANELS, prepared, window_of(recording, fields), fields, source)


def first_use(folder: Path) -> dict[str, float]:
    """Seconds that the default panels' first sample takes in a new process, without and with numba's cache."""
    code = Path(__file__).with_name("first_use.py")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "numba"), "OMP_NUM_THREADS": "1"}
    seconds = [
        float(subprocess.run([sys.executable, code], env=environment, check=True, capture_output=True).stdout)
        for _ in range(2)
    ]
    return {"compiled_s": seconds[0], "cached_s": seconds[1]}


if __name__ == "__main__":
    sys.exit(main())
