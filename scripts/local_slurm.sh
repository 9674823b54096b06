#!/usr/bin/env bash
# A Slurm of two nodes, n1 and n2, on this one machine, for tests and for trying the scripts of slurm/ out.
#   scripts/local_slurm.sh start [FOLDER]     then: source FOLDER/env
#   scripts/local_slurm.sh stop  [FOLDER]
# Everything is in FOLDER (default /tmp/hms-slurm): configuration, key, sockets, state, logs. It uses the loopback, next to
# any other Slurm of the machine; requests without its key are rejected. `start` also restarts a
# daemon that was killed and a node that was drained; `stop` ends all jobs and removes FOLDER, after a crash too.
# LOCAL_SLURM_PORT moves its three ports (17000 to 17002).
set -euo pipefail

PACKAGES="slurm-wlm munge"
PROGRAMS="slurmctld slurmd munged sinfo scancel scontrol"
LIMIT_S=60
BASE_PORT=${LOCAL_SLURM_PORT:-17000}

fail() {
    echo "local_slurm.sh: $*" >&2
    exit "${code:-1}"
}

need_programs() {
    local program
    for program in $PROGRAMS; do
        type "$program" >/dev/null 2>&1 || code=2 fail "$program is missing; apt-get install $PACKAGES"
    done
    ((EUID == 0)) || code=2 fail "its daemons change users, so it must be started as root"
}

write_configuration() {
    mkdir -p "$folder"/{munge,state,spool,logs}
    chmod 755 "$folder" "$folder/munge"
    [[ -s $folder/munge/key ]] || (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
    local name number
    name=$(hostname -s)
    # cred_expire is also how long a requeued job waits before it may start again (120 s by default); the scheduler then
    # looks every 2 s rather than every 30. MessageTimeout is longer than a step takes to die: slurmctld repeats a kill
    # that timed out a minute later, by the step's number alone, and would hit the next attempt of the job.
    # SlurmdTimeout is longer than a busy machine stalls: nodes that did not answer for so long lose their jobs.
    cat >"$folder/slurm.conf" <<CONF
ClusterName=hms-local
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$BASE_PORT
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/logs/slurmctld.log
SlurmdLogFile=$folder/logs/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
JobRequeue=1
ReturnToService=2
SlurmdTimeout=15
MessageTimeout=30
KillWait=5
MinJobAge=3600
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
CONF
    for number in 1 2; do
        echo "NodeName=n$number NodeHostname=$name NodeAddr=127.0.0.1 Port=$((BASE_PORT + number)) CPUs=4 RealMemory=16000"
    done >>"$folder/slurm.conf"
    echo "PartitionName=local Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP" >>"$folder/slurm.conf"
    printf 'export SLURM_CONF=%q\n' "$folder/slurm.conf" >"$folder/env"
}

runs() { # whether the daemon $2 of the pid file $1 runs; a killed one may still be a zombie
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && [[ -n $pid ]] || return
    [[ $(ps --no-headers -o comm=,stat= -p "$pid" | tr -s ' ') =~ ^$2\ [^Z] ]]
}

daemon() { # command line of a daemon, which goes into the background by itself, and soon
    timeout 20 "$@" || fail "$1 did not start (exit code $?); see $folder/logs"
}

start_daemons() {
    runs munged munged || daemon munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/logs/munged.log" --seed-file="$folder/munge/seed"
    runs slurmctld slurmctld || daemon slurmctld -f "$folder/slurm.conf"
    local node
    for node in n1 n2; do
        runs "slurmd-$node" slurmd || daemon slurmd -f "$folder/slurm.conf" -N "$node"
    done
}

nodes() { # names of the nodes that sinfo finds with these options; none while the controller does not answer
    timeout 10 sinfo --noheader --Node --format=%N "$@" 2>/dev/null || true
}

wait_for_nodes() { # both, in use or ready for it; what Slurm has drained after a mishap is put back
    local until=$((SECONDS + LIMIT_S)) drained node
    until
        drained=$(nodes --states=drain)
        [[ -z $drained && $(nodes --states=idle,mixed,allocated --responding | wc -l) == 2 ]]
    do
        ((SECONDS < until)) || fail "the nodes did not come up in $LIMIT_S s; see $folder/logs"
        for node in $drained; do
            timeout 10 scontrol update NodeName="$node" State=RESUME || true
        done
        sleep 0.2
    done
}

ours() { # pids of this Slurm's job steps, which hold their node's log open, and of the jobs' own processes
    { find /proc/[0-9]*/fd -lname "$folder/logs/slurmd-n?.log" 2>/dev/null || true; } | cut -d/ -f3
    local file environment
    for file in /proc/[0-9]*/environ; do
        environment=$(cat "$file" 2>/dev/null | tr '\0' '\n') || continue
        grep -qxF "SLURM_CONF=$folder/slurm.conf" <<<"$environment" || continue
        grep -q ^SLURM_JOB_ID= <<<"$environment" && echo "$file" | cut -d/ -f3
    done
    return 0
}

start() {
    need_programs
    write_configuration
    start_daemons
    wait_for_nodes
    echo "two nodes are up; source $folder/env"
}

stop() {
    [[ -e $folder/slurm.conf ]] || {
        echo "nothing runs in $folder"
        return
    }
    if runs slurmctld slurmctld; then
        timeout 10 scancel --quiet --user=root 2>/dev/null || true
    fi
    local name
    for name in slurmctld slurmd-n1 slurmd-n2 munged; do
        ! runs "$name" "${name%-n?}" || kill -KILL "$(cat "$folder/$name.pid")"
    done
    local left
    for left in $(ours | sort -u); do
        kill -KILL "$left" 2>/dev/null || true
    done
    rm -rf "$folder"
    echo "stopped; $folder is gone"
}

case ${1:-} in
    start | stop) ;;
    --help)
        echo "usage: scripts/local_slurm.sh start|stop [FOLDER]" >&2
        exit
        ;;
    *) code=2 fail "usage: scripts/local_slurm.sh start|stop [FOLDER]" ;;
esac
folder=$(realpath --canonicalize-missing "${2:-/tmp/hms-slurm}")
[[ $folder != *[[:space:]]* ]] || code=2 fail "'$folder': Slurm takes no folder with spaces; choose another"
export SLURM_CONF=$folder/slurm.conf
"$1"
