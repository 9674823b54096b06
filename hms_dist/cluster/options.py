"""What all scripts of a cluster say: the options of sbatch, in #SBATCH lines or on its command line, and the set-up."""

import shlex
from collections.abc import Mapping, Sequence

from hms_dist.cluster.settings import ClusterConfig, Resources


def place_options(cluster: ClusterConfig, resources: Resources) -> list[str]:
    """Whose job it is, and where it runs."""
    return _words({"account": cluster.account, "partition": resources.partition or cluster.partition})


def size_options(cluster: ClusterConfig, resources: Resources) -> list[str]:
    """How large it is, how it ends, and whatever else the configuration says word for word.

    Slurm leaves a job whose dependency has failed in the queue for ever, unless it is told not to.
    """
    size = {
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": resources.gpus or None,
        "cpus-per-task": resources.cpus,
        "mem": f"{resources.memory_gb}G",
        "time": resources.time,
    }
    end = ["--requeue", "--kill-on-invalid-dep=yes", f"--signal=B:USR1@{cluster.warn_s}"]
    return [*_words(size), *end, *cluster.options, *resources.options]


def preparations(cluster: ClusterConfig) -> list[str]:
    """Lines of shell before anything of ours runs; what loads modules may use variables that are not set."""
    exports = [f"export {name}={shlex.quote(str(value))}" for name, value in cluster.environment.items()]
    return [*cluster.setup, *exports, "set -u # not before: modules and conda use variables that are not set"]


def shell_words(values: Sequence[object]) -> str:
    """Values as words of a shell."""
    return " ".join(shlex.quote(str(value)) for value in values)


def _words(options: Mapping[str, object]) -> list[str]:
    """Options as `--name=value`, without those that are None."""
    return [f"--{name}={value}" for name, value in options.items() if value is not None]
