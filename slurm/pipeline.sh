#!/usr/bin/env bash
# Submit a chain of steps, such as sixteenth_place: a job or an array per step, each after the steps that it needs.
# Finished steps are left out: run this again after a failure, once no job of the chain is queued any more.
#   slurm/pipeline.sh CONFIG DATA OUT [options of hms-dist pipeline]
# Printed by hms-dist sbatch --job pipeline; docs/clusters.md explains every part.
set -eo pipefail
if (($# < 3)); then
    echo "usage: slurm/pipeline.sh CONFIG DATA OUT [options of hms-dist pipeline]" >&2
    exit 2
fi
source .venv/bin/activate
set -u # not before: modules and conda use variables that are not set
container=()

# Options of sbatch for a step, by its `job`.
render=(--partition=cpu --nodes=1 --ntasks-per-node=1 --cpus-per-task=16 --mem=32G --time=12:00:00 --requeue --kill-on-invalid-dep=yes --signal=B:USR1@300)
finish=(--partition=cpu --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --mem=16G --time=04:00:00 --requeue --kill-on-invalid-dep=yes --signal=B:USR1@300)
seeds=(--partition=gpu --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8 --mem=48G --time=1-00:00:00 --requeue --kill-on-invalid-dep=yes --signal=B:USR1@300)

batch() { # the script of every step
    cat <<'END'
#!/usr/bin/env bash
set -eo pipefail
source .venv/bin/activate
set -u # not before: modules and conda use variables that are not set
container=()
max_restarts=20

step=$1
shift

job=$SLURM_JOB_ID # an array task is requeued as ARRAYJOB_TASK: the array's number would requeue its siblings too
[[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
attempt=${SLURM_RESTART_COUNT:-0}
if ((attempt > max_restarts)); then
    echo "$job: restarted $attempt times already; given up"
    exit 1
fi

# Compiled code is cached for this job on this node only: jobs that share a cache overwrite each other's files.
export cache=${TMPDIR:-/tmp}/hms-$SLURM_JOB_ID-$attempt
export NUMBA_CACHE_DIR=$cache/numba TORCHINDUCTOR_CACHE_DIR=$cache/inductor TRITON_CACHE_DIR=$cache/triton
trap 'rm -rf "$cache"' EXIT

export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

asked=no
trap 'asked=yes' USR1 TERM # USR1: the warning before the end. TERM: preempted or cancelled.

look_every_s=${look_every_s:-1} # seconds between checks; it can be set before
run() { # run the command to its end; after a signal, ask it to stop at every check
    "$@" &
    local launcher=$!
    while kill -0 $launcher 2>/dev/null; do
        [[ $asked == no ]] || ask $launcher
        sleep "$look_every_s" || true
    done
    wait $launcher && code=0 || code=$?
}

requeue() {
    if ((attempt >= max_restarts)); then
        echo "$job: restarted $attempt times already; given up"
        exit 1
    fi
    # Not a cancelled job, nor one that the scheduler has requeued: on a node that the scheduler considers lost, this
    # script may outlive its attempt.
    local seen
    seen=$(patiently scontrol --oneliner show job "$job")
    [[ $seen == *" JobState=RUNNING "* && $seen == *" Restarts=$attempt "* ]] || exit 1
    echo "$job: back into the queue after attempt $attempt"
    patiently scontrol requeue "$job" || {
        echo "$job: the scheduler did not requeue it; submit it again to continue from here"
        exit 1
    }
    exit 0
}

patiently() { # retry: the scheduler may be unavailable for a moment
    local wait_s
    for wait_s in 2 8 20 60; do
        ! "$@" || return 0
        sleep $wait_s
    done
    "$@"
}

ask() { kill -TERM "$1" 2>/dev/null || true; }

run "${container[@]}" hms-dist pipeline "$@" --step "$step" --task "${SLURM_ARRAY_TASK_ID:-0}"

if ((code)) && [[ $asked == yes ]]; then requeue; fi
exit "$code"
END
}

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
        echo "step $step was refused by sbatch; fix that, scancel what was submitted before it" \
            "(${before:-nothing}), and run this again" >&2
        exit 1
    }
    ids[$step]=${id%%;*}
    echo "${ids[$step]}" >>"$jobs"
    echo "$step: job ${ids[$step]}"
done <<<"$left"
