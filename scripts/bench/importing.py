"""Speed of `hms-dist import`, compared in the same run with mne's reader and polyphase resampling.

python scripts/bench/importing.py [--minutes 30] [--rounds 5] [--num_files 5000] [--json FILE]. Reading and resampling:
an EDF file of 20 channels at 256 Hz to [20, samples] in memory, in alternation with mne. End to end: the command, from
the file to Parquet files and tables. Planning: a folder of many small EDF files, every header read. CPU seconds of one
thread (OMP_NUM_THREADS=1); exit code 1 if a target is missed.
"""

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import edfio
import numpy as np

from hms_dist.cli import main as hms_dist
from hms_dist.core.files import write_json
from hms_dist.core.signal_format import CHANNELS
from hms_dist.datasets import HMS
from hms_dist.imports.job import Work
from hms_dist.imports.key import Key
from hms_dist.imports.open_recording import opened
from hms_dist.imports.plan import find_recordings, plan_import
from hms_dist.imports.signal import Signal, SignalOptions

RATE_HZ = 256
TIMES_REAL_TIME = 500
PLAN_S = 60.0


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--minutes", type=int, default=30, help="length of the recording")
    words.add_argument("--rounds", type=int, default=5, help="alternations with mne")
    words.add_argument("--num_files", type=int, default=5000, help="number of small files to plan")
    words.add_argument("--json", type=Path, help="also write the figures to this file")
    return words


def main() -> int:
    """Measure, print the table, and return the exit code."""
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "night.edf"
        path.write_bytes(recording(arguments.minutes * 60))
        ours, theirs = alternated(path, arguments.rounds)
        whole = end_to_end(path, folder / "out")
        plan_s = planning(folder / "many", arguments.num_files)
    length_s = arguments.minutes * 60
    targets = {
        "at least as fast as mne": ours <= theirs,
        f"end to end at {TIMES_REAL_TIME} times real time": length_s / whole >= TIMES_REAL_TIME,
        f"planned within {PLAN_S:g} s": plan_s <= PLAN_S,
    }
    print(f"{arguments.minutes} minutes, {len(CHANNELS)} channels at {RATE_HZ} Hz; CPU seconds")
    print("| work | seconds | times real time |")
    print("|---|--:|--:|")
    for work, seconds in {
        "read and resample": ours,
        "mne: read_raw_edf, resample(method='polyphase')": theirs,
        "import, end to end (start of the process not counted)": whole,
    }.items():
        print(f"| {work} | {seconds:.2f} | {length_s / seconds:,.0f} |")
    print(f"| plan {arguments.num_files:,} files | {plan_s:.2f} | |")
    for target, met in targets.items():
        print(f"{'met' if met else 'MISSED'}: {target}")
    if arguments.json:
        found: dict[str, Any] = {
            "minutes": arguments.minutes, "rate_hz": RATE_HZ, "read_and_resample_s": ours, "mne_s": theirs,
            "end_to_end_s": whole, "num_files": arguments.num_files, "plan_s": plan_s, "targets": targets,
        }  # fmt: skip
        write_json(arguments.json, found)
    return 0 if all(targets.values()) else 1


def recording(length_s: int) -> bytes:
    """An EDF file of coloured noise."""
    rng = np.random.default_rng(0)
    noise = np.cumsum(rng.normal(0, 20, (len(CHANNELS), RATE_HZ * length_s)), axis=1)
    noise -= np.apply_along_axis(np.convolve, 1, noise, np.ones(RATE_HZ) / RATE_HZ, mode="same")
    signals = [
        edfio.EdfSignal(
            np.clip(values, -3200, 3200), RATE_HZ, label=f"EEG {name.upper()}-REF", physical_dimension="uV",
            physical_range=(-3276.8, 3276.7),
        )
        for name, values in zip(CHANNELS, noise, strict=True)
    ]  # fmt: skip
    buffer = io.BytesIO()
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(0, length_s, "LPD")]).write(buffer)
    return buffer.getvalue()


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of a call, including system time; the files are in the page cache."""
    before = os.times()
    work()
    after = os.times()
    return (after.user - before.user) + (after.system - before.system)


def alternated(path: Path, rounds: int) -> tuple[float, float]:
    """Median seconds of reading and resampling by this package and by mne, without the first round."""
    import mne

    def here() -> object:
        with opened(path) as source:
            signal = Signal(source, SignalOptions())
            return signal.read(0, signal.num_samples)

    def there() -> object:
        raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
        return raw.resample(200, method="polyphase", verbose="error").get_data()

    times = [(cpu_s(here), cpu_s(there)) for _ in range(rounds + 1)][1:]
    return median(one for one, _ in times), median(other for _, other in times)


def end_to_end(path: Path, out: Path) -> float:
    """Seconds of the command, with a label row every 10 s."""
    words = ["import", "--data", str(path), "--patient", "file", "--pictures", "0", "--out"]
    assert hms_dist([*words, str(out) + "-first"]) == 0  # imports and compiled code are ready
    return cpu_s(lambda: hms_dist([*words, str(out)]))


def planning(folder: Path, number: int) -> float:
    """Wall-clock seconds to find and plan many files, with their headers."""
    folder.mkdir()
    content = recording(2)
    for place in range(number):
        (folder / f"{place:05}.edf").write_bytes(content)
    work = Work(
        out=folder / "out", dataset=HMS, signal=SignalOptions(), truncated="fail", every_s=10.0, background=None,
        labelled=True,
    )  # fmt: skip
    began = perf_counter()
    plan = plan_import(
        folder, find_recordings(folder), work, Key(folder / "out"), labels="auto", table={}, patient="file"
    )
    assert len(plan.tasks) == number
    return perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
