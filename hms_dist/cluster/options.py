"""Parts shared by all job scripts: options of sbatch, as #SBATCH lines or on its command line, and the shell set-up."""

import shlex
from collections.abc import Mapping, Sequence

from hms_dist.cluster.settings import ClusterConfig, Resources


def place_options(cluster: ClusterConfig, resources: Resources) -> list[str]:
    """Options for account and partition."""
    return _words({"account": cluster.account, "partition": resources.partition or cluster.partition})


def size_options(cluster: ClusterConfig, resources: Resources) -> list[str]:
    """Options for size, end of job and the configured extra options.

    By default Slurm keeps a job whose dependency failed in the queue forever; an option prevents that.
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
    """Shell lines before the first command. `set -u` comes last, because module loading uses unset variables."""
    exports = [f"export {name}={shlex.quote(str(value))}" for name, value in cluster.environment.items()]
    return [*cluster.setup, *exports, "set -u # not before: modules and conda use variables that are not set"]


def shell_words(values: Sequence[object]) -> str:
    """Quote values as shell words."""
    return " ".join(shlex.quote(str(value)) for value in values)


def _words(options: Mapping[str, object]) -> list[str]:
    """Format options as `--name=value`, without those that are None."""
    return [f"--{name}={value}" for name, value in options.items() if value is not None]
