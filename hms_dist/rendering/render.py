"""`hms-dist render`: render recordings and their label table into a shard set."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hms_dist.config.load import from_stored, stored
from hms_dist.config.versions import PLUGINS_KEY
from hms_dist.core.errors import UserError
from hms_dist.core.keyed import check_seed
from hms_dist.core.logging import LOG
from hms_dist.core.plugins import check_plugins
from hms_dist.datasets import read_dataset
from hms_dist.jobs.lease import LeaseHeld, await_expiry
from hms_dist.jobs.worker_processes import run_jobs
from hms_dist.labels.table import LabelTable, shared_spectrograms
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.panels.panel import Panel
from hms_dist.recordings.label_rows import read_rows
from hms_dist.rendering.build_spec import (
    NEXT_FOLDER,
    BuildSpec,
    begin,
    build_spec_of,
    discard_build,
    is_complete,
    is_done,
    plain_dataset,
)
from hms_dist.rendering.find_faults import find_size_faults
from hms_dist.rendering.finish import complete, num_open, rejected_rows, settle
from hms_dist.rendering.progress import Progress, log_estimate
from hms_dist.rendering.render_shard import ShardResult, ShardTask, Work, render_shard
from hms_dist.rendering.shard_plan import plan_shards
from hms_dist.rendering.sources import changed_shards, keep_unchanged
from hms_dist.shards.schema import is_member_name
from hms_dist.shards.writer import Rejected, lease_path


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """Options that determine the bytes of a shard set; their hash identifies the recipe."""

    RECIPE_FOLDER = "render"

    panels: dict[str, Panel] = field(default_factory=lambda: dict(DEFAULT_PANELS))
    """Panels of each sample, by member name in the shards."""
    samples_per_shard: int = 128
    """Samples per tar; the last tar may hold fewer."""
    seed: int = 0
    """Seed of the permutation that spreads patients over the shards, and of the folds in the index."""

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError("panels: at least one panel is needed")
        for name in self.panels:
            if not is_member_name(name):
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
    """Folder of the shard set; created if missing."""
    split: Literal["train", "test"] = "train"
    """Which recordings: train_eegs and train_spectrograms, or test_..."""
    table: Path | None = None
    """Label table. None: DATA/train.csv or DATA/test.csv, depending on `split`."""
    workers: int = 1
    """Number of rendering processes; it does not affect the tars."""
    job: str = "0/1"
    """K/N: render only slice K of N, counted from 0, in parallel with other jobs; the last one finishes the set."""
    on_error: Literal["fail", "skip"] = "fail"
    """A row that cannot be rendered: fail at the end of its shard, or skip it into rejected.parquet."""
    max_rejected_share: float = 0.01
    """With on_error skip: fail if a larger fraction of the rows is rejected, over all slices."""
    rebuild: bool = False
    """Render again what was rendered with another configuration, table or recording."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")
        if not 0 <= self.max_rejected_share <= 1:
            raise ValueError(f"max_rejected_share: expected 0 to 1, found {self.max_rejected_share}")
        number, _, slices = self.job.partition("/")
        if not (number.isdigit() and slices.isdigit() and int(number) < int(slices)):
            raise ValueError(f"job: expected K/N with K from 0 to N - 1, such as 0/4, found '{self.job}'")

    @property
    def slice(self) -> tuple[int, int]:
        """K and N of `job`."""
        number, _, slices = self.job.partition("/")
        return int(number), int(slices)


def run(command: Render) -> None:
    """Run the command `render`. Raises UserError for invalid input, naming file and row."""
    dataset = read_dataset(command.data)
    labels = read_rows(command.data, command.split, dataset, command.table)
    for name, panel in command.panels.items():
        if fault := panel.fault(dataset):
            raise UserError(f"panels.{name}: {type(panel).__name__} {fault}")
    if command.split == "train" and not labels.labelled:
        names = ", ".join(dataset.vote_columns)
        LOG.warning("%s has no column of votes (%s): this set will not train", labels.path, names)
    if shared := shared_spectrograms(labels.frame):
        LOG.warning(
            "%s: %d spectrograms are of several patients each (%d for one): they may be on both sides of a fold",
            labels.path, len(shared), shared[0],
        )  # fmt: skip
    plans = plan_shards(labels.frame, command.samples_per_shard, command.seed)
    build_spec = _build_spec(command, labels, len(plans))
    settle(command.out)
    begun = _prepare(command, build_spec)
    if begun is None:
        LOG.info("%s is complete already: nothing to do", command.out)
        return
    folder, build_spec = begun
    number, slices = command.slice
    mine = plans[number::slices]
    skip = command.on_error == "skip"
    todo = [plan for plan in mine if not is_done(folder, plan, build_spec.note, allow_rejected=skip)]
    work = Work(
        command.panels, command.data, command.split, folder, build_spec.note, skip_bad_rows=skip, dataset=dataset
    )
    tasks = [ShardTask(work, plan, labels.frame.iloc[list(plan.rows)]) for plan in todo]
    LOG.info(
        "rendering %d label rows into %d shards of %s (slice %s, %d done before)",
        sum(len(task.rows) for task in tasks), len(tasks), command.out, command.job, len(mine) - len(todo),
    )  # fmt: skip
    log_estimate(tasks, command.out, command.workers)
    rejected = _render_all(tasks, command, labels)
    if skip:  # those of shards rendered earlier, or by other slices, count too
        rejected = [_line(labels, row) for row in rejected_rows(folder, build_spec.num_shards)]
    _check_rejected(rejected, len(labels.frame), command)
    if others := num_open(folder, build_spec.num_shards):
        LOG.info("slice %s is done; %d shards of other slices are open", command.job, others)
        return
    try:
        complete(command.out, folder, build_spec)
    except LeaseHeld as other:
        LOG.info("slice %s is done; %s, finishing the set", command.job, other)


def _build_spec(command: Render, labels: LabelTable, num_shards: int) -> BuildSpec:
    recipe = RenderConfig(panels=command.panels, samples_per_shard=command.samples_per_shard, seed=command.seed)
    specs = {name: dataclasses.asdict(panel.spec) for name, panel in command.panels.items()}
    return BuildSpec(
        render_config=stored(recipe),
        panels=json.loads(json.dumps(specs)),
        table=labels.path.name,
        table_sha256=labels.fingerprint,
        split=command.split,
        num_shards=num_shards,
        dataset=plain_dataset(labels.dataset),
    )


def _prepare(command: Render, build_spec: BuildSpec) -> tuple[Path, BuildSpec] | None:
    """Return the folder to render into and its specification; None if that set is already complete.

    Raises UserError with the differences if the folder holds another set and `rebuild` was not given.
    """
    existing = build_spec_of(command.out)
    differences = _differences(existing, build_spec) if existing else []
    changed: set[int] = set()
    if is_complete(command.out) and not differences:
        for fault in find_size_faults(command.out):
            raise UserError(f"{fault}; run hms-dist verify --repair --shards {command.out} --data {command.data}")
        changed = changed_shards(command.out, command.data, command.split)
        if not changed:
            return None
        differences = [f"recordings of {len(changed)} of {build_spec.num_shards} shards"]
    if differences and not command.rebuild:
        raise UserError(
            f"{command.out}: made from other input ({'; '.join(differences[:4])}); --rebuild renders "
            f"{len(changed) or build_spec.num_shards} of {build_spec.num_shards} shards again, another "
            "--out leaves it alone"
        )
    folder = command.out / NEXT_FOLDER if is_complete(command.out) else command.out
    begun = build_spec_of(folder)
    if begun is not None and not _differences(begun, build_spec):
        return folder, begun
    if begun is not None:
        discard_build(folder)
    begin(folder, build_spec)
    if changed:
        keep_unchanged(command.out, folder, build_spec, changed)
    return folder, build_spec


def _differences(before: BuildSpec, now: BuildSpec) -> list[str]:
    """Differences that `now` would make to a set begun as `before`, independent of its stored format version."""
    check_plugins(before.render_config.get(PLUGINS_KEY), "render_config")
    try:
        recipe = from_stored(RenderConfig, before.render_config, "render_config")
    except UserError:  # panels unknown to this program: different in any case
        return before.differences(now)
    plugins = {name: value for name, value in before.render_config.items() if name == PLUGINS_KEY}
    options = {name: value for name, value in stored(recipe).items() if name != PLUGINS_KEY}
    return dataclasses.replace(before, render_config=plugins | options).differences(now)


def _render_all(tasks: Sequence[ShardTask], command: Render, labels: LabelTable) -> list[str]:
    """Render every task; return the rejected rows, one line each. Shards held by others are waited for, or an error."""
    rejected: list[str] = []
    taken: list[ShardResult] = []
    with Progress(sum(len(task.rows) for task in tasks)) as progress:
        for outcome in run_jobs(render_shard, tasks, command.workers):
            rejected += [_line(labels, bad) for bad in outcome.rejected]
            if outcome.taken_by:
                taken.append(outcome)
                continue
            progress.add(len(outcome.task.rows))
            if rejected and command.on_error == "fail":
                break
    ends = rejected and command.on_error == "fail"
    for line in rejected[1:] if ends else rejected:
        LOG.warning("%s", line)
    return rejected if ends else rejected + _wait_for(taken, command, labels)


def _wait_for(taken: Sequence[ShardResult], command: Render, labels: LabelTable) -> list[str]:
    """Take over shards whose owners have died, as `_render_all`. Raises UserError naming an owner that is alive."""
    for outcome in taken:
        path = lease_path(outcome.task.work.out, outcome.task.plan.number)
        try:
            await_expiry(path)
        except LeaseHeld as error:
            raise UserError(f"{command.out}: shard {outcome.task.plan.number}: {error}; wait for that job") from error
    left = [outcome.task for outcome in taken if not _made_meanwhile(outcome)]
    return _render_all(left, command, labels) if left else []


def _line(labels: LabelTable, bad: Rejected) -> str:
    return f"{labels.where(bad.row)}: {bad.reason}"


def _made_meanwhile(outcome: ShardResult) -> bool:
    from hms_dist.shards.writer import part_path

    return part_path(outcome.task.work.out, outcome.task.plan.number).exists()


def _check_rejected(rejected: Sequence[str], num_rows: int, command: Render) -> None:
    if not rejected:
        return
    if command.on_error == "fail":
        more = f" (and {len(rejected) - 1} more rows)" if len(rejected) > 1 else ""
        raise UserError(rejected[0] + more)
    if len(rejected) > command.max_rejected_share * num_rows:
        raise UserError(
            f"{len(rejected)} of {num_rows} rows rejected, more than max_rejected_share {command.max_rejected_share}; "
            f"the first: {rejected[0]}"
        )
