"""Cost of mixing patients over the shards in opened files, on a label table of the real size.

python scripts/bench/mixing.py [--num_rows 106800] [--json FILE]. Three ways to assign rows to shards: in the table's
order (no mixing), whole spectrograms shuffled (as plan_shards does), and single rows shuffled (full mixing). A file is
opened once for each run of rows that need it; its time is measured here, on one simulated recording. Mixing is measured
by the patients in a shard and by the fraction of neighbours in a tar that show the same EEG.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from full_size import NUM_ROWS, label_table

from hms_dist.core.files import write_json
from hms_dist.recordings.reader import read_eeg, read_spectrogram
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render import RenderConfig
from hms_dist.rendering.shard_plan import ShardPlan, plan_shards


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--num_rows", type=int, default=NUM_ROWS, help="label rows of the table")
    words.add_argument("--json", type=Path, help="also write the figures there")
    return words


def main() -> None:
    """Compare the three ways and print the table."""
    arguments = parser().parse_args()
    frame, size = label_table(arguments.num_rows), RenderConfig().samples_per_shard
    eeg_ms, spectrogram_ms = file_milliseconds()
    ways = {
        "table order": in_order(np.arange(len(frame)), size),
        "spectrograms shuffled (ours)": plan_shards(frame, size, seed=0),
        "rows shuffled": in_order(np.random.default_rng(0).permutation(len(frame)), size),
    }
    found = {name: weigh(frame, plans, eeg_ms, spectrogram_ms) for name, plans in ways.items()}
    print(
        f"{len(frame)} rows, {size} a shard; an EEG takes {eeg_ms:.1f} ms to read, a spectrogram {spectrogram_ms:.1f}"
    )
    print("| rows to shards | EEGs opened | spectrograms opened | reading, min | patients per shard | same EEG next |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, row in found.items():
        print(
            f"| {name} | {row['eeg_opens']:,} | {row['spectrogram_opens']:,} | {row['reading_min']:.1f} "
            f"| {row['patients_a_shard']:.0f} | {100 * row['same_eeg_next']:.1f} % |"
        )
    if arguments.json:
        write_json(arguments.json, {"eeg_ms": eeg_ms, "spectrogram_ms": spectrogram_ms, "ways": found})


def file_milliseconds(rounds: int = 9) -> tuple[float, float]:
    """Median time to read an EEG and a spectrogram file, warm."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        simulate(Simulate(out=data, num_recordings=1))
        times: dict[str, list[float]] = {"eeg": [], "spectrogram": []}
        for _ in range(rounds + 1):
            for kind, read in (("eeg", read_eeg), ("spectrogram", read_spectrogram)):
                path = next((data / f"train_{kind}s").iterdir())
                start = perf_counter()
                read(path)
                times[kind].append(1e3 * (perf_counter() - start))
    return median(times["eeg"][1:]), median(times["spectrogram"][1:])


def in_order(order: np.ndarray, size: int) -> list[ShardPlan]:
    """Shards of rows as they come."""
    parts = [tuple(map(int, order[first : first + size])) for first in range(0, len(order), size)]
    return [ShardPlan(number, rows, rows) for number, rows in enumerate(parts)]


def weigh(frame: pd.DataFrame, plans: Sequence[ShardPlan], eeg_ms: float, spectrogram_ms: float) -> dict[str, Any]:
    """Files opened, minutes of reading, and how mixed the tars are."""
    opens = {"eeg_id": 0, "spectrogram_id": 0}
    patients, same, neighbours = [], 0, 0
    columns = {name: frame[name].to_numpy() for name in ("eeg_id", "spectrogram_id", "patient_id")}
    for plan in plans:
        rows = np.array(plan.rows)
        for name in opens:
            values = columns[name][rows]
            opens[name] += 1 + int((values[1:] != values[:-1]).sum())
        patients.append(len(np.unique(columns["patient_id"][rows])))
        written = columns["eeg_id"][np.array(plan.tar_order)]
        same += int((written[1:] == written[:-1]).sum())
        neighbours += len(written) - 1
    return {
        "eeg_opens": opens["eeg_id"],
        "spectrogram_opens": opens["spectrogram_id"],
        "reading_min": (opens["eeg_id"] * eeg_ms + opens["spectrogram_id"] * spectrogram_ms) / 60_000,
        "patients_a_shard": float(np.mean(patients)),
        "same_eeg_next": same / neighbours,
    }


if __name__ == "__main__":
    main()
