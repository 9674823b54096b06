"""Training from Python: `hms_dist.train(config, ...)`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hms_dist.config.load import resolved
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig


def train(config: TrainConfig | Mapping[str, Any] | str | Path, **options: Any) -> Path:
    """Train one model, from the start or from the last checkpoint, and return its run folder.

    `config`: a `TrainConfig`, its options as plain values, or the name or path of a recipe. `options`: further options
    of `hms-dist train`, which override those of `config`; nested ones by dotted names: `**{"optim.lr": 1e-3}`. `shards`
    and `out` are required. A call with the same options continues a stopped run. Under accelerate or torchrun every
    rank makes the same call.

    Raises UserError for input or options that `hms-dist train` rejects, JobError for a run that fails or is stopped.
    """
    chosen = resolved(TrainConfig, config, options)
    run(chosen)
    return chosen.out
