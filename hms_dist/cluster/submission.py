"""Script that submits a chain of steps: one job or array per step, with dependencies on the steps that it needs."""

from hms_dist.cluster.options import place_options, preparations, shell_words, size_options
from hms_dist.cluster.settings import ClusterConfig, Resources
from hms_dist.cluster.templates import STEP

_JOBS = ("render", "finish", "seeds")
"""Resources that a step may name (`job` of a step)."""

_HEAD = """#!/usr/bin/env bash
# Submit a chain of steps, such as sixteenth_place: a job or an array per step, each after the steps that it needs.
# Finished steps are left out: run this again after a failure, once no job of the chain is queued any more.
#   slurm/pipeline.sh CONFIG DATA OUT [options of hms-dist pipeline]
# Printed by hms-dist sbatch --job pipeline; docs/clusters.md explains every part.
set -eo pipefail
if (($# < 3)); then
    echo "usage: slurm/pipeline.sh CONFIG DATA OUT [options of hms-dist pipeline]" >&2
    exit 2
fi
"""

_SUBMIT = """
chain=(--config "$1" --data "$2" --out "$3" "${@:4}")
left=$("${container[@]}" hms-dist pipeline "${chain[@]}" --list)
if [[ -z $left ]]; then
    echo "every step is done"
    exit
fi

mkdir -p "$3/steps" || exit 2
lock=$3/steps/submitting # two concurrent submissions would each reject half of the other's tasks
if ! (set -o noclobber && : >"$lock") 2>/dev/null; then
    echo "$lock: somebody is submitting this chain; wait for that, or remove this file if nobody is" >&2
    exit 2
fi
trap 'rm -f "$lock"' EXIT

jobs=$3/steps/jobs # the numbers of those that were submitted last
if [[ -s $jobs ]]; then # all jobs are asked for: squeue fails for a number that Slurm has forgotten
    queued=$(squeue --noheader --format=%F) || {
        echo "squeue does not answer, so jobs of this chain may be in the queue still; try again later" >&2
        exit 1
    }
    queued=$(sort -u <<<"$queued" | grep -Fxf "$jobs") || true
    if [[ -n $queued ]]; then
        echo "jobs of this chain are in the queue still; wait for them or scancel them:" $queued >&2
        exit 2
    fi
fi
: >"$jobs"

declare -A ids # of the jobs submitted here, by step
while read -r step job tasks after; do
    declare -n asked=$job
    options=(--job-name="hms-$step" --output="hms-$step-%j.log" --open-mode=append)
    [[ $tasks == - ]] || options+=(--array="$tasks" --output="hms-$step-%A_%a.log")
    if [[ $after != - ]]; then
        awaited=
        for name in ${after//,/ }; do awaited+=:${ids[$name]}; done
        options+=(--dependency="afterok$awaited")
    fi
    id=$(batch | sbatch --parsable "${options[@]}" "${asked[@]}" /dev/stdin "$step" "${chain[@]}") || {
        before=$(paste -sd' ' "$jobs")
        echo "step $step was refused by sbatch; fix that, scancel what was submitted before it" \\
            "(${before:-nothing}), and run this again" >&2
        exit 1
    }
    ids[$step]=${id%%;*}
    echo "${ids[$step]}" >>"$jobs"
    echo "$step: job ${ids[$step]}"
done <<<"$left"
"""


def submission(cluster: ClusterConfig) -> str:
    """Return the text of slurm/pipeline.sh, a pure function of the configuration."""
    prelude = "\n".join([*preparations(cluster), f"container=({shell_words(cluster.container)})"])
    return (
        "\n".join([f"{_HEAD}{prelude}", "", *_asked(cluster), "", *_batch(cluster.max_restarts, prelude)])
        + "\n"
        + _SUBMIT
    )


def _asked(cluster: ClusterConfig) -> list[str]:
    """One array of sbatch options for each job that a step may name."""
    lines = ["# Options of sbatch for a step, by its `job`."]
    for name in _JOBS:
        resources: Resources = getattr(cluster, name)
        lines.append(f"{name}=({shell_words([*place_options(cluster, resources), *size_options(cluster, resources)])})")
    return lines


def _batch(max_restarts: int, prelude: str) -> list[str]:
    """Shell function that prints the batch script of every step."""
    return [
        "batch() { # the script of every step",
        "    cat <<'END'",
        "#!/usr/bin/env bash",
        "set -eo pipefail",
        prelude,
        f"max_restarts={max_restarts}",
        f"{STEP}END",
        "}",
    ]
