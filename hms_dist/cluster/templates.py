"""Parts of the job scripts that are the same on every cluster: arguments, command, exit.

The shell variables above them hold the configuration. Apart from shared snippets nothing is filled in, so the text
reads as it runs.
"""

from hms_dist.cluster.preempt import IDENTITY, PREEMPTION

_THREADS = r"""
# Each rank computes with its share of the cores and reads with a few of them.
threads=$((SLURM_CPUS_PER_TASK > ranks ? SLURM_CPUS_PER_TASK / ranks : 1))
readers=$((threads < 4 ? threads : 4))
export OMP_NUM_THREADS=$threads
"""

_ASK_RUN = r"""
ask() { # again at each look: a run that is still starting clears the file. Not if another job owns the run.
    ! grep -qs "\"job\": \"$job\".*\"attempt\": $attempt}" "$run/.claim" || touch "$run/stop"
}
"""

_ASK_COMMAND = r"""
ask() { kill -TERM "$1" 2>/dev/null || true; }
"""

_REQUEUE_IF_ASKED = r"""
if ((code)) && [[ $asked == yes ]]; then requeue; fi
"""

_ONE_NODE = r"""
launch() { # exec: what `run` waits for and the scheduler signals is the launcher itself, not a shell around it
    if ((ranks == 1)); then
        exec "${container[@]}" hms-dist train "$@"
    else
        exec "${container[@]}" accelerate launch \
            --config_file "$("${container[@]}" hms-dist recipes accelerate/cluster)" \
            --num_processes "$ranks" --main_process_port 0 -m hms_dist train "$@"
    fi
}
"""

_MANY_NODES = r"""
# The ranks meet at the first node, where this script runs; the port follows from the job, so that jobs of one node
# do not collide, and the next free one is taken if it is in use.
head=$(hostname)
port=$((20000 + SLURM_JOB_ID % 12000))
while (: <>"/dev/tcp/$head/$port") 2>/dev/null; do port=$((port + 1)); done
export head port ranks

# One task per node, which starts one rank per GPU. Text in single quotes expands on each node. Because of exec, srun
# itself is the process that `run` waits for and that the scheduler signals; an srun that outlived its attempt would end
# the steps of the next one.
launch() {
    exec srun --export=ALL --cpus-per-task="$SLURM_CPUS_PER_TASK" --wait=60 "${container[@]}" bash -c '
        trap "rm -rf \"$cache\"" EXIT
        accelerate launch --config_file "$(hms-dist recipes accelerate/cluster)" \
            --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * ranks))" \
            --machine_rank "$SLURM_NODEID" --main_process_ip "$head" --main_process_port "$port" \
            --rdzv_backend c10d --rdzv_conf "is_host=$((SLURM_NODEID == 0)),read_timeout=300" \
            -m hms_dist train "$@"' launch "$@"
}
"""

_BEGUN = r"""
begun() { stat --format=%i-%Z "$run/environment.json" 2>/dev/null || true; } # changes when a run, or a stage, begins
before=$(begun)
"""

_REQUEUE_IF_LOST = r"""
# A run that fails by itself leaves RUN/.fault, or is rejected before it begins; one that was stopped by a user
# has RUN/stop. One that ended without either, or was killed before it began, has lost a rank or a node.
lost() {
    if [[ $(begun) == "$before" ]]; then ((code > 128)); else [[ ! -e $run/.fault && ! -e $run/stop ]]; fi
}
if ((code)) && [[ $asked == no ]] && lost; then requeue; fi
"""

RENDER = f"""
data=$1 shards=$2
shift 2
{IDENTITY}{PREEMPTION}{_ASK_COMMAND}
run "${{container[@]}}" hms-dist render --data "$data" --out "$shards" --workers "$SLURM_CPUS_PER_TASK" \\
    --job "$SLURM_ARRAY_TASK_ID/$slices" "$@"
{_REQUEUE_IF_ASKED}exit "$code"
"""

FINISH = f"""
shards=$1
shift
{IDENTITY}{PREEMPTION}{_ASK_COMMAND}
run "${{container[@]}}" hms-dist finish --out "$shards"
((code)) || run "${{container[@]}}" hms-dist verify --shards "$shards" "$@"
{_REQUEUE_IF_ASKED}exit "$code"
"""

_TRAIN = f"""
shards=$1 run=$2
shift 2
{IDENTITY}{_THREADS}{PREEMPTION}{_ASK_RUN}"""

_TRAIN_END = f"""
run launch --shards "$shards" --out "$run" --reader_threads "$readers" "$@"
[[ $asked == no ]] || rm -f "$run/stop"
{_REQUEUE_IF_ASKED}"""

TRAIN_ONE_NODE = f'{_TRAIN}{_ONE_NODE}{_TRAIN_END}exit "$code"\n'
TRAIN_MANY_NODES = f'{_TRAIN}{_MANY_NODES}{_BEGUN}{_TRAIN_END}{_REQUEUE_IF_LOST}exit "$code"\n'

SEEDS = f"""
shards=$1 runs=$2
shift 2
last=$((${{#seeds[@]}} * ${{#folds[@]}} - 1))
if ((SLURM_ARRAY_TASK_ID > last)); then
    echo "--array: ${{#seeds[@]}} seeds and ${{#folds[@]}} folds are tasks 0 to $last, found $SLURM_ARRAY_TASK_ID" >&2
    exit 2
fi
seed=${{seeds[SLURM_ARRAY_TASK_ID / ${{#folds[@]}}]}} fold=${{folds[SLURM_ARRAY_TASK_ID % ${{#folds[@]}}]}}
name=seed-$seed-fold-$fold run=$runs/seed-$seed-fold-$fold
{IDENTITY}
# Seed and fold in the queue and in the log.
scontrol update JobId="$job" JobName="hms-$name" || true
mkdir -p "$runs/logs"
log=$runs/logs/$name-$job.log
echo "$name: $log"
exec >>"$log" 2>&1
{_THREADS}{PREEMPTION}{_ASK_RUN}{_ONE_NODE}
run launch --shards "$shards" --out "$run" --seed "$seed" --fold "$fold" --reader_threads "$readers" "$@"
[[ $asked == no ]] || rm -f "$run/stop"
{_REQUEUE_IF_ASKED}exit "$code"
"""

STEP = f"""
step=$1
shift
{IDENTITY}
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
{PREEMPTION}{_ASK_COMMAND}
run "${{container[@]}}" hms-dist pipeline "$@" --step "$step" --task "${{SLURM_ARRAY_TASK_ID:-0}}"
{_REQUEUE_IF_ASKED}exit "$code"
"""
