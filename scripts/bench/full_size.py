"""A label table of the real size, and a shard set of it of which all but two shards are finished.

python scripts/bench/full_size.py FOLDER [--num_rows 106800] makes FOLDER/data and FOLDER/set; `hms-dist render` on them
then plans, checks every shard, renders the two, and writes index and manifest. The table has the counts of Kaggle's:
106,800 rows, 17,089 EEGs of 1 to 700 rows, 11,138 spectrograms, 1,950 patients. Finished shards hold a few bytes in
place of pictures, and the recordings of the open ones are one simulated recording under many names.
"""

import argparse
import json
import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_dist.config.load import stored
from hms_dist.core.files import sha256_of
from hms_dist.datasets import HMS
from hms_dist.labels.table import read_labels, sample_key
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.build_spec import BuildSpec, begin
from hms_dist.rendering.render import RenderConfig
from hms_dist.rendering.shard_plan import ShardPlan, plan_shards
from hms_dist.shards.schema import JSON_MEMBER, json_member, member_name
from hms_dist.shards.writer import Sample, write_shard

NUM_ROWS, NUM_EEGS, NUM_SPECTROGRAMS, NUM_PATIENTS = 106_800, 17_089, 11_138, 1_950
"""Counts of Kaggle's train.csv; a smaller table is scaled down."""
NUM_OPEN = 2
"""Shards left to render."""


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("folder", type=Path, help="folder for data and set; must not hold them yet")
    words.add_argument("--num_rows", type=int, default=NUM_ROWS, help="label rows; enough for three shards")
    return words


def main() -> None:
    """Make data and set."""
    given = parser().parse_args()
    folder = given.folder
    data = folder / "data"
    simulate(Simulate(out=data, num_recordings=1))
    (data / "train.csv").unlink()
    label_table(given.num_rows).to_csv(data / "train.csv", index=False)
    recipe = RenderConfig()
    frame = read_labels(data / "train.csv").frame
    plans = plan_shards(frame, recipe.samples_per_shard, recipe.seed)
    build_spec = BuildSpec(
        render_config=stored(recipe),
        panels=json.loads(json.dumps({name: asdict(panel.spec) for name, panel in recipe.panels.items()})),
        table="train.csv",
        table_sha256=sha256_of(data / "train.csv"),
        split="train",
        num_shards=len(plans),
    )
    begin(folder / "set", build_spec)
    for plan in plans[:-NUM_OPEN]:
        write_tiny_shard(folder / "set", plan, frame, build_spec)
    needed = frame.iloc[[row for plan in plans[-NUM_OPEN:] for row in plan.rows]]
    for kind in ("eeg", "spectrogram"):
        parquet = next((data / f"train_{kind}s").iterdir())
        for number in needed[f"{kind}_id"].unique():
            os.link(parquet, parquet.with_name(f"{number}.parquet"))


def label_table(num_rows: int = NUM_ROWS) -> pd.DataFrame:
    """Label rows with the counts of Kaggle's table and its long tail of rows per EEG; votes are drawn evenly."""
    rng = np.random.default_rng(0)
    num_eegs, num_spectrograms, num_patients = (
        max(1, round(number * num_rows / NUM_ROWS)) for number in (NUM_EEGS, NUM_SPECTROGRAMS, NUM_PATIENTS)
    )
    extra = rng.multinomial(num_rows - num_eegs, rng.dirichlet(np.full(num_eegs, 0.3)))
    eeg = np.repeat(np.arange(num_eegs), 1 + np.minimum(extra, 699))
    eeg = np.sort(np.append(eeg, rng.integers(0, num_eegs, num_rows - len(eeg))))
    spectrogram = np.minimum(
        eeg, np.append(np.arange(num_spectrograms), rng.integers(0, num_spectrograms, num_eegs))[eeg]
    )
    frame = pd.DataFrame({"eeg_id": 1_000_000 + 31 * eeg})
    frame["eeg_sub_id"] = frame.groupby("eeg_id").cumcount()
    frame["eeg_label_offset_seconds"] = 0.0
    frame["spectrogram_id"] = 2_000_000 + 17 * spectrogram
    frame["spectrogram_label_offset_seconds"] = 0.0
    frame["patient_id"] = 1 + spectrogram % num_patients
    votes = rng.multinomial(3, np.full(HMS.num_classes, 1 / HMS.num_classes), num_rows)
    frame["expert_consensus"] = np.array(HMS.titles)[votes.argmax(axis=1)]
    frame[list(HMS.vote_columns)] = votes
    return frame


def write_tiny_shard(folder: Path, plan: ShardPlan, frame: pd.DataFrame, build_spec: BuildSpec) -> None:
    """Write a shard whose panels are empty."""
    rows = frame.iloc[list(plan.tar_order)].astype(object).to_dict("records")
    write_shard(folder, plan.number, [_sample(values, build_spec.panels) for values in rows], build_spec.note)


def _sample(values: Mapping[Hashable, Any], panels: Iterable[str]) -> Sample:
    key = sample_key(values["eeg_id"], values["eeg_sub_id"])
    fields = {"key": key, **{str(name): value for name, value in values.items()}}
    members = {name: (member_name(key, name), b"") for name in panels}
    members[JSON_MEMBER] = (member_name(key, JSON_MEMBER), json_member(fields))
    prints = {f"{kind}_fingerprint": f"1000000-{values[f'{kind}_id']:08x}" for kind in ("eeg", "spectrogram")}
    return Sample(fields | prints, members)


if __name__ == "__main__":
    main()
