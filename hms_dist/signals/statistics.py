"""`hms-dist statistics`: measure the scale of each trace of a montage on recordings, in one pass.

The 16th place's A_i, "0.05 and 0.95 quantiles over train": A_i is the mean magnitude of the two quantiles of trace i,
filtered as it is drawn, over every recorded sample of every recording.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from hms_dist.config.load import to_dict
from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic
from hms_dist.core.logging import LOG
from hms_dist.datasets import read_dataset
from hms_dist.labels.table import read_labels
from hms_dist.recordings.reader import read_eeg
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.gaps import GapPolicy, fill_gaps
from hms_dist.signals.montage import TRACE_MONTAGES, Montage, differences
from hms_dist.signals.quantiles import QuantileCounter

TAIL = 0.05
"""Fraction of a trace's samples beyond each of the two quantiles."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Compute the scales of the trace picture from recordings, and write a YAML file with a panel `Traces`.

    Name the file in a render configuration (`panels: {traces: FILE}`), or copy its scales_uv. Every EEG of the label
    table counts once, in full; gaps do not count. The result is within 0.05 % of the exact quantiles for any order of
    the files; memory use does not grow with their number.
    """

    data: Path
    """Folder in Kaggle's layout: train.csv, train_eegs/ (or test...)."""
    out: Path
    """YAML file to write (.yaml)."""
    split: Literal["train", "test"] = "train"
    """Which recordings: train_eegs or test_eegs."""
    table: Path | None = None
    """Label table. None: DATA/train.csv or DATA/test.csv, depending on `split`."""
    montage: Montage = "bipolar"
    """Montage of the 20 traces, as the panel's option of this name."""
    gaps: GapPolicy = "zero"
    """Fill value of gaps before filtering, as the panel's option of this name."""
    filters: FilterChain = field(default_factory=FilterChain)
    """Filters of every trace, over the whole recording."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".yaml":
            raise ValueError(f"out: expected a name ending in .yaml, found {self.out.name}")


def run(command: Statistics) -> None:
    """Run the command `statistics`. Raises UserError for invalid input, and for a trace that no recording contains."""
    if not command.out.parent.is_dir():
        raise UserError(f"{command.out.parent}: no such folder; make it, or choose another --out")
    labels = read_labels(command.table or command.data / f"{command.split}.csv", read_dataset(command.data))
    eeg_ids = labels.frame["eeg_id"].drop_duplicates()
    counter = QuantileCounter(len(TRACE_MONTAGES[command.montage]))
    for row, eeg_id in tqdm(eeg_ids.items(), "statistics", len(eeg_ids), unit="recording", disable=None):
        try:
            eeg = read_eeg(command.data / f"{command.split}_eegs" / f"{eeg_id}.parquet")
        except UserError as error:
            raise UserError(f"{labels.path}: row {row + 2}: {error}") from error
        signals = differences(eeg, TRACE_MONTAGES[command.montage])
        counter.add(apply(command.filters, fill_gaps(signals, command.gaps)), np.isfinite(signals))
    scales_uv = scales_of(counter, command.montage)
    with atomic(command.out, "w") as file:
        file.write(panel_text(command, scales_uv, len(eeg_ids)))
    LOG.info(
        "%s: %d recordings, scales %.1f to %.1f uV", command.out, len(eeg_ids), scales_uv.min(), scales_uv.max()
    )  # fmt: skip


def scales_of(counter: QuantileCounter, montage: Montage) -> NDArray[np.float64]:
    """A_i of each trace [20], microvolts. Raises UserError for a trace without samples, or with zeros in most."""
    scales_uv = (np.abs(counter.quantile(TAIL)) + np.abs(counter.quantile(1 - TAIL))) / 2
    for pair, scale_uv in zip(TRACE_MONTAGES[montage], scales_uv, strict=True):
        if not scale_uv > 0:
            found = "no sample" if np.isnan(scale_uv) else "nothing but zeros between its outer 5 %"
            raise UserError(
                f"trace {'-'.join(pair)}: expected recorded EEG, found {found} in all recordings; "
                "choose recordings or a montage that have it"
            )
    return scales_uv


def panel_text(command: Statistics, scales_uv: NDArray[np.float64], num_recordings: int) -> str:
    """Format the YAML file: a panel with `scales_uv` [20] for a render configuration, and a comment on its origin."""
    options: dict[str, Any] = to_dict(command)
    panel = {
        "class_path": "Traces",
        "init_args": {
            **{name: options[name] for name in ("montage", "gaps", "filters")},
            "scales_uv": [round(float(scale), 3) for scale in scales_uv],
        },
    }
    header = (
        f"# hms-dist statistics: {num_recordings} recordings.\n"
        "# scales_uv: mean of the magnitudes of the 0.05 and 0.95 quantiles of each filtered trace, microvolts;\n"
        f"# traces: {' '.join('-'.join(pair) for pair in TRACE_MONTAGES[command.montage])}\n"
    )
    return header + yaml.safe_dump(panel, sort_keys=False, default_flow_style=None, width=100)
