"""The offline composition root: label row -> recording -> panels -> sample -> shard set."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from hms_dist.config import to_dict
from hms_dist.errors import UserError
from hms_dist.files import digest, sha256_of
from hms_dist.images import DEFAULT_PANELS
from hms_dist.images.panel import Panel, Window
from hms_dist.labels import VOTE_COLUMNS, read_labels
from hms_dist.recordings.reader import RATE_HZ, WINDOW_SAMPLES, Recording, RecordingReader
from hms_dist.run import LOG, check_seed
from hms_dist.shards.jobs import Note, already_complete, finish, is_done
from hms_dist.shards.plan import ShardPlan, plan_shards
from hms_dist.shards.schema import JSON_MEMBER, PanelSpec, json_member, member_name, sample_key
from hms_dist.shards.writer import Sample, write_shard
from hms_dist.signals.quality import channel_quality


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What decides the bytes of a shard set; its hash names the recipe."""

    panels: dict[str, Panel] = field(default_factory=lambda: dict(DEFAULT_PANELS))
    """Panels of each sample, by the name of their member in the shards."""
    samples_per_shard: int = 128
    """Samples in each tar; the last tar may hold fewer."""
    seed: int = 0
    """Seed of the permutation that spreads patients over the shards."""

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError("panels: at least one panel is needed")
        for name in self.panels:
            if not name.isidentifier() or name == JSON_MEMBER:
                raise ValueError(f"panels: '{name}' cannot name a member; use letters, digits and _ (not 'json')")
        if self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard: expected at least 1, found {self.samples_per_shard}")
        check_seed("seed", self.seed)


@dataclass(frozen=True, kw_only=True)
class Render(RenderConfig):
    """Render recordings into a shard set: DATA/train.csv and its parquet files -> OUT/shard-*.tar.

    Rerun the same command after a kill: finished shards are kept, the rest is rendered.
    """

    data: Path
    """Folder in Kaggle's layout: train.csv, train_eegs/, train_spectrograms/ (or test...)."""
    out: Path
    """Folder of the shard set; made if it does not exist."""
    split: Literal["train", "test"] = "train"
    """Which recordings: train_eegs and train_spectrograms, or test_..."""
    table: Path | None = None
    """Label table. None: DATA/train.csv or DATA/test.csv, as `split` says."""
    workers: int = 1
    """Processes that render side by side; the tars do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")


def run(command: Render) -> None:
    """The verb `render`. Raises UserError for bad input, naming file and row."""
    recipe = RenderConfig(panels=command.panels, samples_per_shard=command.samples_per_shard, seed=command.seed)
    labels = read_labels(command.table or command.data / f"{command.split}.csv")
    note = {
        "render_config_hash": digest(to_dict(recipe)),
        "table_sha256": sha256_of(labels.path),
        "split": command.split,
    }
    if already_complete(command.out, note):
        LOG.info("%s is complete already: nothing to do", command.out)
        return
    command.out.mkdir(parents=True, exist_ok=True)
    plans = plan_shards(labels.frame, recipe.samples_per_shard, recipe.seed)
    open_plans = [plan for plan in plans if not is_done(command.out, plan, note)]
    LOG.info(
        "rendering %d label rows into %d shards of %s (%d done before)",
        len(labels.frame), len(plans), command.out, len(plans) - len(open_plans),
    )  # fmt: skip
    work = Work(recipe.panels, labels.path, command.data, command.split, command.out, note)
    tasks = [(plan, labels.frame.iloc[list(plan.rows)]) for plan in open_plans]
    with tqdm(total=sum(len(plan.rows) for plan in open_plans), unit="row", disable=None) as bar:
        for num_rows in _render_all(work, tasks, command.workers):
            bar.update(num_rows)
    specs = {name: panel.spec for name, panel in recipe.panels.items()}
    finish(command.out, plans, note=note, panels=specs, render_config=to_dict(recipe), table=labels.path)


@dataclass(frozen=True)
class Work:
    """What a worker needs to render any shard of a set, beside the shard's own rows."""

    panels: Mapping[str, Panel]
    table: Path
    data: Path
    split: Literal["train", "test"]
    out: Path
    note: Note


def render_shard(work: Work, plan: ShardPlan, rows: pd.DataFrame) -> int:
    """Render and write one shard; its number of rows. One BLAS thread, so that bytes repeat."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        samples = dict(_render_rows(work, rows))
        write_shard(work.out, plan.number, (samples[row] for row in plan.tar_order), work.note)
    return len(rows)


def render_sample(
    panels: Mapping[str, Panel], prepared: Mapping[str, Any], window: Window, fields: Mapping[str, Any]
) -> Sample:
    """One label row: every panel drawn and encoded, and the json member (shards/README.md describes it)."""
    key = fields["key"]
    facts = {name: value for name, value in fields.items() if not name.endswith("fingerprint")}
    facts["quality"] = channel_quality(window.recording.eeg[window.start : window.start + WINDOW_SAMPLES])
    members = {JSON_MEMBER: (member_name(key, JSON_MEMBER), json_member(facts))}
    for name, panel in panels.items():
        spec = _spec(panel)
        members[name] = (member_name(key, name, spec), spec.encode(panel.draw(prepared[name], window)))
    return Sample(fields, members)


@cache
def _spec(panel: Panel) -> PanelSpec:
    """A panel's specification, computed once for all rows."""
    return panel.spec


def _render_all(work: Work, tasks: Sequence[tuple[ShardPlan, pd.DataFrame]], workers: int) -> Iterator[int]:
    """Render every shard, side by side if asked; yields the rows of each as it is done."""
    if workers == 1 or len(tasks) < 2:
        for plan, rows in tasks:
            yield render_shard(work, plan, rows)
        return
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(render_shard, work, plan, rows) for plan, rows in tasks]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _render_rows(work: Work, rows: pd.DataFrame) -> Iterator[tuple[int, Sample]]:
    """Samples by table row; each file is read, and each recording prepared, once."""
    reader = RecordingReader(data=work.data, split=work.split)
    recording: Recording | None = None
    prepared: dict[str, Any] = {}
    for row, values in zip(rows.index, rows.to_dict("records"), strict=True):
        fields = _fields(values)
        try:
            wanted = (fields["eeg_id"], fields["spectrogram_id"])
            if recording is None or (recording.eeg_id, recording.spectrogram_id) != wanted:
                recording = reader.read(*wanted)
                prepared = {name: panel.prepare(recording) for name, panel in work.panels.items()}
            window = window_of(recording, fields)
        except UserError as error:
            raise UserError(f"{work.table}: row {row + 2}: {error}") from error
        for kind, number in zip(("eeg", "spectrogram"), wanted, strict=True):
            fields[f"{kind}_fingerprint"] = reader.fingerprints[f"{work.split}_{kind}s/{number}.parquet"]
        yield row, render_sample(work.panels, prepared, window, fields)


def window_of(recording: Recording, fields: Mapping[str, Any]) -> Window:
    """The label row's window; UserError if the EEG is too short for it."""
    start = round(fields["eeg_label_offset_seconds"] * RATE_HZ)
    stop = start + WINDOW_SAMPLES
    if stop > len(recording.eeg):
        raise UserError(
            f"EEG {recording.eeg_id} has {len(recording.eeg)} samples, the 50 s window needs {start} to {stop}; "
            "check eeg_label_offset_seconds"
        )
    return Window(recording=recording, start=start, spectrogram_offset_s=fields["spectrogram_label_offset_seconds"])


def _fields(values: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Index fields of a table row as plain Python values; votes are None where the table has none."""
    ids = {name: int(values[name]) for name in ("eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id")}
    offsets = {name: float(values[name]) for name in ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds")}
    votes = {name: None if pd.isna(values[name]) else int(values[name]) for name in VOTE_COLUMNS}
    return {"key": sample_key(ids["eeg_id"], ids["eeg_sub_id"]), **ids, **offsets, **votes}
