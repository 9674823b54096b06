"""`hms-dist pipeline`: run a chain of steps on this machine in order, or one of its tasks as a cluster job."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hms_dist.cluster.pipeline_spec import Chain, PipelineTask, tasks_of
from hms_dist.cluster.task_cache import is_done, leased, made_from, note, open_tasks
from hms_dist.commands.table import check
from hms_dist.core.errors import JobError, UserError
from hms_dist.core.logging import LOG
from hms_dist.core.plugins import plugin_words
from hms_dist.jobs.processes import launched


@dataclass(frozen=True, kw_only=True)
class Pipeline(Chain):
    """Run a chain of steps to its end; finished steps are skipped. Rerun the same command after a kill or a failure.

    It stops at the first command that fails. slurm/pipeline.sh submits the same chain to a cluster.
    """

    list: bool = False
    """Print the steps that are left and run nothing. One line each: name, job, task numbers (- without a list), open
    steps before it (- for none)."""
    step: str | None = None
    """Run only this step, even if earlier steps are unfinished. None: all."""
    task: int | None = None
    """With step: run only this task, by its index in the list, from 0. None: all of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None and self.step not in [step.name for step in self.steps]:
            raise ValueError(f"step: no '{self.step}'; one of: {', '.join(step.name for step in self.steps)}")
        if self.list and self.step is not None:
            raise ValueError("step: list prints all steps; leave one of them out")
        if self.task is not None and self.step is None:
            raise ValueError("task: counts the tasks of a step; give --step")


def run(command: Pipeline) -> None:
    """Run the command `pipeline`. Raises UserError for missing files, JobError for a failed command."""
    tasks = tasks_of(command)
    chosen = _chosen(tasks, command.step, command.task)
    _check_reads(chosen)
    if command.step is None:
        _check_words(command, open_tasks(tasks, command.out))
    if command.list:
        sys.stdout.write(listing(command, tasks))
        return
    for number, task in enumerate(chosen, 1):
        LOG.info("%d of %d, %s%s", number, len(chosen), task.title, task.purpose and f": {task.purpose}")
        run_task(task, command)


def listing(command: Chain, tasks: dict[str, list[PipelineTask]]) -> str:
    """Format the lines that `list` prints."""
    left = open_tasks(tasks, command.out)
    lines = []
    for step in command.steps:
        if step.name in left:
            numbers = "-" if step.each is None else ",".join(str(task.number) for task in left[step.name])
            before = ",".join(name for name in step.after if name in left) or "-"
            lines.append(f"{step.name} {step.job} {numbers} {before}\n")
    return "".join(lines)


def run_task(task: PipelineTask, chain: Chain) -> None:
    """Run the command of a task, unless it is finished, and record it. Raises as `run`."""
    with leased(task, chain.out) as held:
        if is_done(task, chain.out):
            LOG.info("done already")
            return
        origin = made_from(task)
        if origin is None:
            _check_reads([task])
            first = next(one for one in task.before if not one.makes.exists())
            raise UserError(f"step {task.title}: no file {first.makes}; run step {first.title} first")
        _call(task)
        if not held.is_mine():
            raise JobError(f"step {task.title}: another job took it over; this one ends")
        note(task, chain.out, origin)


def _call(task: PipelineTask) -> None:
    task.makes.parent.mkdir(parents=True, exist_ok=True)
    words = _filled(task)
    LOG.info("hms-dist %s", shlex.join(words))
    with launched([sys.executable, "-m", "hms_dist", *words, *plugin_words()]) as process:
        pass
    if process.returncode:
        raise JobError(f"step {task.title} ended with exit code {process.returncode}; its message is above")
    if not task.makes.exists():
        raise JobError(f"step {task.title} succeeded, but did not write {task.makes}; correct `makes` or the command")


def num_cpus() -> int:
    """CPUs for a step: those of the Slurm job, else those of this process."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or len(os.sched_getaffinity(0)))


def _chosen(tasks: dict[str, list[PipelineTask]], step: str | None, number: int | None) -> Sequence[PipelineTask]:
    if step is None:
        return [task for every in tasks.values() for task in every]
    every = tasks[step]
    if number is None:
        return every
    if not 0 <= number < len(every):
        raise UserError(f"--task: expected 0 to {len(every) - 1}, found {number}")
    return [every[number]]


def _check_reads(tasks: Sequence[PipelineTask]) -> None:
    """Raise UserError for missing files from outside the chain, before any step runs."""
    for task in tasks:
        for path in task.reads:
            if not path.exists():
                raise UserError(f"step {task.title}: no file {path}; check --data")


def _check_words(chain: Chain, tasks: dict[str, list[PipelineTask]]) -> None:
    """Raise UserError for words that a step's command would reject, before any step runs.

    Steps whose configuration is written by an earlier step are not checked.
    """
    made_later = re.compile(re.escape(str(chain.out)) + r"/[^\s\"',\]]*\.yaml")
    for task in (task for every in tasks.values() for task in every):
        words = _filled(task)
        if all(Path(path).exists() for word in words for path in made_later.findall(word)):
            try:
                check(words)
            except UserError as error:
                raise UserError(f"step {task.title}: {words[0]}: {error}") from error


def _filled(task: PipelineTask) -> list[str]:
    return [word.replace("{cpus}", str(num_cpus())) for word in task.words]
