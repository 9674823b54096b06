"""The options of a training run, and checks of their combinations."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hms_dist.canvas.augment import AugmentConfig
from hms_dist.canvas.options import CanvasConfig
from hms_dist.core.keyed import check_seed
from hms_dist.labels.table import FOLD_COUNTS
from hms_dist.model.build import CompileMode, ModelConfig
from hms_dist.model.freeze import FreezeConfig
from hms_dist.stream.read.storage import StorageConfig
from hms_dist.stream.rows.epoch_plan import Batching
from hms_dist.stream.rows.filters import FilterConfig
from hms_dist.stream.rows.locality import LocalityConfig
from hms_dist.stream.rows.overlay import OverlayConfig
from hms_dist.stream.rows.selections import SelectionConfig
from hms_dist.train.optimise.ema import EmaConfig
from hms_dist.train.optimise.loss_config import LossConfig
from hms_dist.train.optimise.optim import OptimConfig
from hms_dist.train.optimise.plateau import PlateauConfig
from hms_dist.train.optimise.schedules import ScheduleConfig
from hms_dist.train.stage_config import StageConfig, check_stages

MAX_EPOCHS = 100_000
"""Limit of `epochs`; the steps of all epochs are counted before the run starts."""
MAX_TIMEOUT_S = 7 * 24 * 3600.0
"""A week; much larger values would overflow a timedelta."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train one model on one shard set; launched by accelerate or torchrun, or alone as one process."""

    RECIPE_FOLDER = "train"

    shards: str
    """Folder of the shard set, or its URL (http://, s3://, gs://)."""
    out: Path
    """Run folder; created if missing. Rerunning the same command continues a stopped run."""
    canvas: CanvasConfig
    """Layout of the model's input: a file such as configs/canvas/sixteenth_place.yaml."""
    seed: int = 0
    """Seed of initial weights, order of rows and random draws; 0 to 2^32 - 1."""
    fold: int | Literal["none"] = 0
    """Validation fold, counted from 0; none: train on all rows, validate on none."""
    num_folds: int = 5
    """Number of folds that the patients are split into, 2 to 10. The splits are stored in the shard set, so all runs
    share them."""
    left_out_folds: tuple[int, ...] = ()
    """Further folds that the run neither trains nor validates on: a model whose predictions filter another run's
    training rows (filters.model_loss) must not have seen that run's validation fold."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue a stopped run of the same configuration; never: reject a run folder that holds a run."""
    other_shards: bool = False
    """Allow a stopped run to continue on a different shard set, for example of other rows, and after its tables of
    labels or initial weights have changed. Panels must be rendered with the same options."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    init: Path | None = None
    """Run folder whose best (else final) weights the run begins with, of the same network on the same or another data
    set, in place of `model.weights`. Classes with the same name keep their row of the classifier; the others begin as
    drawn from the seed. None: `model.weights`."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""
    plateau: PlateauConfig = field(default_factory=PlateauConfig)
    """Lower the learning rate, or stop, when validation no longer improves."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss and the weights of rows."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Moving average of the weights."""
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    """First layers that are not trained."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Selection of each epoch's rows among the training rows."""
    filters: FilterConfig = field(default_factory=FilterConfig)
    """Filters that remove training rows for the whole run."""
    overlay: OverlayConfig | None = None
    """Targets from a table instead of the votes, such as pseudo-labels. None: the votes of all rows."""
    locality: LocalityConfig | None = None
    """Order of an epoch that reads neighbouring samples of a tar together, for slow storage. None: a full shuffle."""
    stages: tuple[StageConfig, ...] = ()
    """Stages of the run, each with the options that differ; the last one gives the final model. Empty: the run has one
    stage."""
    epochs: int = 16
    """Number of passes over the selected rows."""
    global_batch: int = 24
    """Number of rows of one optimiser step, over all ranks."""
    group_size: int = 8
    """Rows of one group, over which batch norm computes its statistics, within which rows are mixed, and which are
    evaluated together. Divides global_batch. The number of ranks and of passes does not change it."""
    flip_probability: float = 0.5
    """Share of training rows to flip (left and right exchanged)."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Further augmentations of training rows: a file such as configs/augment/sixteenth_place.yaml."""
    precision: Literal["bf16", "fp16", "tf32", "float32", "float64"] = "float32"
    """Arithmetic of the network; bf16 and fp16 are automatic mixed precision, tf32 is float32 with products of 10
    instead of 23 mantissa bits. A GPU without bf16 uses fp16; a device without fp16 (a CPU) or TF32 uses float32; both
    with a warning. float64 is for tests."""
    pass_rows: int | None = None
    """Largest number of rows in one forward and backward pass of a rank; fewer need less memory and give the same
    result. None: all rows of a rank, or as many as fit into the memory of its GPU, measured at the start."""
    compile_mode: CompileMode | Literal["auto"] | None = "auto"
    """torch.compile's mode; on a GPU, passes are also captured as CUDA graphs. auto: CUDA graphs, and torch.compile's
    default mode for runs of at least 2,000 steps, because compiling takes a minute or two; None: neither."""
    reader_threads: int = 2
    """Number of threads of each rank that read and decode samples."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Reading of the shard set, for network file systems and URLs."""
    on_error: Literal["stop", "replace"] = "stop"
    """stop: a damaged sample ends the run; replace: another row of its group replaces it, logged and counted."""
    max_replaced: int = 100
    """With on_error replace: largest number of samples that each rank replaces, since the start or the resume, before
    the run stops. Rows of the validation fold are never replaced."""
    checkpoint_every: int | None = None
    """Number of optimiser steps between checkpoints within an epoch; None: only at the end of each epoch."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep for resuming; best and final weights are kept in addition."""
    log_every: int = 10
    """Number of optimiser steps between lines of metrics.jsonl."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to these trackers, in the run folder; wandb stays offline unless WANDB_MODE is set."""
    timeout_s: float = 600
    """Longest wait for another rank, seconds; a rank that hangs longer ends the run."""

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        self._check_folds()
        self._check_numbers()
        check_stages(self.stages, has_fold=self.fold != "none")
        if self.plateau.active and self.fold == "none":
            raise ValueError("plateau: needs the scores of a validation fold, fold is none; set fold, or leave it out")
        if self.locality is not None:
            self.locality.check_batch(self.global_batch)
        if self.overlay is not None and self.loss.smooth_below is not None:
            raise ValueError("loss.smooth_below: smooths votes, and overlay replaces them; leave one of them out")
        _ = self.batching
        self.augment.check(self.canvas)
        if self.model.sliding_window is not None and self.augment.moves_window:
            raise ValueError(
                "augment: mixing, shifting and reversing images move the annotated window of a sliding-window model; "
                "use its own model.sliding_window.crop_share and paste_probability, or augment.signal_steps (of these, "
                "SignalPasteOther needs place: annotation)"
            )
        if self.augment.mixes and self.group_size < 2:
            raise ValueError(f"augment: mixing needs groups of 2 rows or more, found group_size {self.group_size}")
        for stage in self.stages:
            try:
                replace(self, stages=(), **stage.options)
            except ValueError as error:
                raise ValueError(f"stages: '{stage.name}': {error}") from error

    @property
    def batching(self) -> Batching:
        """Rows and groups of a step."""
        return Batching(global_batch=self.global_batch, group_size=self.group_size)

    def _check_numbers(self) -> None:
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability: expected 0 to 1, found {self.flip_probability}")
        if self.pass_rows is not None and self.pass_rows < 1:
            raise ValueError(f"pass_rows: expected at least 1 or null, found {self.pass_rows}")
        for name in ("epochs", "reader_threads", "max_replaced", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.epochs > MAX_EPOCHS:
            raise ValueError(f"epochs: expected at most {MAX_EPOCHS}, found {self.epochs}")
        if not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"timeout_s: expected more than 0 and at most {MAX_TIMEOUT_S:g}, found {self.timeout_s}")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every: expected at least 1 or null, found {self.checkpoint_every}")

    def _check_folds(self) -> None:
        if self.num_folds not in FOLD_COUNTS:
            raise ValueError(f"num_folds: expected 2 to {FOLD_COUNTS[-1]}, found {self.num_folds}")
        if self.fold != "none" and not 0 <= self.fold < self.num_folds:
            raise ValueError(f"fold: expected 0 to {self.num_folds - 1} (num_folds is {self.num_folds}), or none")
        if not {*self.left_out_folds} <= {*range(self.num_folds)} - {self.fold}:
            found = list(self.left_out_folds)
            raise ValueError(f"left_out_folds: expected 0 to {self.num_folds - 1} other than fold, found {found}")
        if {*self.left_out_folds, self.fold} >= {*range(self.num_folds)}:
            raise ValueError(f"left_out_folds: {list(self.left_out_folds)} leave no fold to train on; leave out fewer")
