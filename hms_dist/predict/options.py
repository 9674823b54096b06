"""Options of prediction, independent of its input, and a check that the run supports them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hms_dist.core.errors import UserError
from hms_dist.model.build import CompileMode
from hms_dist.predict.tta import Mirror, check_mirrors
from hms_dist.results.predictions import check_no_input
from hms_dist.stream.read.storage import StorageConfig
from hms_dist.train.folder.record import PREDICTIONS_NAME
from hms_dist.train.folder.run_folder import read_config, stored_weights
from hms_dist.train.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Options of prediction, except its input."""

    run: Path
    """Run folder."""
    out: Path
    """Table to write: .parquet, or .csv with Kaggle's submission columns."""
    checkpoint: str | None = None
    """Weights of the run: best, final, latest or step-<8 digits>. None: best, or final for a run without a fold."""
    weights: Literal["ema", "raw"] | None = None
    """ema: the moving average; raw: the raw weights. None: the average if the run kept one."""
    tta: tuple[Mirror, ...] = ()
    """Mirror images whose predictions are averaged with the row's own: flip (left and right exchanged), reverse (time
    runs backwards); with both, every row is predicted four times. Empty: none."""
    compile_mode: CompileMode | None = None
    """torch.compile's mode, for thousands of rows on a GPU: compilation takes minutes. None: no compilation."""
    threads: int = 2
    """Reading and decoding threads per rank."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Storage options of the shard set, for network file systems and URLs."""

    def __post_init__(self) -> None:
        if self.out.suffix not in (".parquet", ".csv"):
            raise ValueError(f"out: expected a name ending in .parquet or .csv, found {self.out.name}")
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, found {self.threads}")
        if len(set(self.tta)) < len(self.tta):
            raise ValueError(f"tta: expected each mirror image once, found {', '.join(self.tta)}")


def opened_run(command: PredictConfig) -> TrainConfig:
    """Read the configuration of the run to predict with. Raises UserError if the run does not support the options."""
    config = read_run(command.run, command.checkpoint)
    check_no_input(command.out, [command.run / PREDICTIONS_NAME])
    check_mirrors(config.model, command.tta)
    return config


def read_run(run: Path, checkpoint: str | None = None) -> TrainConfig:
    """Read the configuration of a run. Raises UserError if it is not a run folder, or has no such weights yet."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: not a run folder (no config.yaml); check --run")
    stored_weights(run, checkpoint)
    return read_config(run)
