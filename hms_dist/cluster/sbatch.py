"""`hms-dist sbatch`: print a job script for a cluster. Pure text: nothing is submitted or queried."""

import sys
from dataclasses import dataclass
from typing import Literal

from hms_dist.cluster.options import place_options, preparations, shell_words, size_options
from hms_dist.cluster.settings import ClusterConfig, Resources
from hms_dist.cluster.submission import submission
from hms_dist.cluster.templates import FINISH, RENDER, SEEDS, TRAIN_MANY_NODES, TRAIN_ONE_NODE

_ARGUMENTS = {
    "render": ("DATA", "SHARDS", "hms-dist render"),
    "finish": ("SHARDS", "hms-dist verify"),
    "train": ("SHARDS", "RUN", "hms-dist train"),
    "seeds": ("SHARDS", "RUNS", "hms-dist train"),
}
"""Arguments of each script: paths, then options of the command named last."""
_PURPOSE = {
    "render": "Render a shard set: an array, a slice per task. A stopped slice resumes where it was.",
    "finish": "Complete a set whose slices are rendered, and read every byte of it. Submit it with "
    "--dependency=afterok:ID\n# of the render array.",
    "train": "Train one run, through preemptions and lost nodes, to its end.",
    "seeds": "Train every seed with every fold: an array, a run per task, RUNS/seed-S-fold-F.",
}


@dataclass(frozen=True, kw_only=True)
class Sbatch(ClusterConfig):
    """Print the script of one job for a cluster. `sbatch` accepts it as a file or from a pipe; the pipeline's is run
    directly."""

    job: Literal["render", "finish", "train", "seeds", "pipeline"]
    """Kind of script; pipeline: the one that submits the steps of a chain as dependent jobs."""


def run(command: Sbatch) -> None:
    """Run the command `sbatch`."""
    sys.stdout.write(script(command))


def script(command: Sbatch) -> str:
    """Return the text of a job script, a pure function of the configuration.

    Jobs are warned, stopped and requeued as described in `cluster.preempt`.
    """
    if command.job == "pipeline":
        return submission(command)
    resources: Resources = getattr(command, command.job)
    parts = [_title(command.job), *_options(command, resources), "set -eo pipefail", *_usage(command.job)]
    parts += [*_variables(command, resources)]
    body = {"render": RENDER, "finish": FINISH, "seeds": SEEDS}.get(command.job)
    if body is None:
        body = TRAIN_MANY_NODES if resources.nodes > 1 else TRAIN_ONE_NODE
    return "\n".join(parts) + "\n" + body


def _title(job: str) -> str:
    *paths, others = _ARGUMENTS[job]
    return (
        f"#!/usr/bin/env bash\n# {_PURPOSE[job]}\n"
        f"#   sbatch slurm/{job}.sbatch {' '.join(paths)} [options of {others}]\n"
        f"# Printed by hms-dist sbatch --job {job}; docs/clusters.md explains every line."
    )


def _options(command: Sbatch, resources: Resources) -> list[str]:
    """The #SBATCH lines."""
    log = {"render": "hms-render-%A_%a.log", "seeds": "hms-seeds-%A_%a.log"}.get(
        command.job, f"hms-{command.job}-%j.log"
    )
    array = _array(command)
    lines = [
        f"--job-name=hms-{command.job}",
        *place_options(command, resources),
        f"--output={log}",
        "--open-mode=append",
        *([] if array is None else [f"--array={array}"]),
        *size_options(command, resources),
    ]
    return [f"#SBATCH {line}" for line in lines]


def _array(command: Sbatch) -> str | None:
    num_tasks = {
        "render": command.render.slices,
        "seeds": len(command.seeds.seeds) * len(command.seeds.folds),
    }.get(command.job)
    return None if num_tasks is None else f"0-{num_tasks - 1}"


def _usage(job: str) -> list[str]:
    """Shell code that rejects a call with too few words, or outside of Slurm."""
    *paths, others = _ARGUMENTS[job]
    usage = f"usage: sbatch slurm/{job}.sbatch {' '.join(paths)} [options of {others}]"
    lines = [f"if (($# < {len(paths)})); then", f'    echo "{usage}" >&2', "    exit 2", "fi"]
    lines += [
        "if [[ -z ${SLURM_JOB_ID:-} ]]; then",
        f'    echo "this is a job of Slurm, not a script to call; submit it: sbatch slurm/{job}.sbatch ..." >&2',
        "    exit 2",
        "fi",
    ]
    return lines


def _variables(command: Sbatch, resources: Resources) -> list[str]:
    """Configuration values as shell variables."""
    lines = [*preparations(command), f"max_restarts={command.max_restarts}"]
    lines.append(f"container=({shell_words(command.container)})")
    if command.job == "render":
        lines.append(f"slices={command.render.slices}")
    if command.job in ("train", "seeds"):
        lines.append(f"ranks={resources.ranks_per_node} # on each node")
    if command.job == "seeds":
        lines += [f"seeds=({shell_words(command.seeds.seeds)})", f"folds=({shell_words(command.seeds.folds)})"]
    return lines
