"""Shell code shared by the job scripts: warning, clean stop and requeue.

Slurm warns only the batch shell (`--signal=B:USR1@...`): torchrun is killed by that signal and leaves its ranks
running. The shell asks the job to stop, waits for its end, and requeues it: by ARRAYJOB_TASK for an array task, because
the number of the array alone would requeue its siblings too.
"""

IDENTITY = r"""
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
"""
"""Identity of this job, and its own caches."""

PREEMPTION = r"""
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
"""
"""`run` and `requeue`; the script defines `ask`, which asks process $1 to stop."""
