"""The command `estimate`: disk, memory and hours of a recipe, from what a few rows take on this machine."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hms_dist.canvas.compose import Canvas
from hms_dist.commands.measure import RenderCost, StepCost, rendering_cost, step_cost
from hms_dist.config.load import load
from hms_dist.config.recipes import names
from hms_dist.core.errors import UserError
from hms_dist.rendering.render import RenderConfig
from hms_dist.shards.index import open_set
from hms_dist.train.learn.network import compile_mode
from hms_dist.train.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Estimate(TrainConfig):
    """Estimate disk, GPU memory and hours of a recipe, from a few rows rendered and a few steps taken here."""

    shards: str = ""
    """A shard set to measure with. Empty: render simulated recordings, and measure that too."""
    out: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """Folder for the temporary files."""
    rows: int
    """Number of label rows of the shard set; in a test set, of EEGs. Selections and filters are not applied to it."""
    render: RenderConfig | None = None
    """Render recipe. None: the packaged one with the fewest panels that fits the canvas."""
    num_gpus: int = 1
    """Number of GPUs that share global_batch."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rows", "num_gpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not self.out.is_dir():
            raise ValueError(f"out: expected a folder for temporary files, found '{self.out}'; create it")
        self.batching.check_world(self.num_gpus)


@dataclass(frozen=True)
class Line:
    """One quantity of an estimate."""

    what: str
    value: float
    unit: str
    """GB or h."""
    source: str
    """measured here, computed or stated: by what."""

    def __str__(self) -> str:
        value, unit = self.value, self.unit
        if unit == "h" and value < 1:
            value, unit = value * 60, "min"
        return f"{self.what:<30}{value:>8.3g} {unit:<4} {self.source}"


@dataclass(frozen=True)
class Stated:
    """Measured figures of a recipe as shipped, from docs/performance.md."""

    model: str
    size: tuple[int, int]
    images_per_s: float
    gigabytes: float


STATED = (
    Stated("tf_efficientnet_b0", (512, 512), 1241.6, 5.7),
    Stated("tiny_vit_21m_512", (640, 1920), 182.6, 28.9),
)
STATED_ON = "docs/performance.md, one H200, bf16, compiled"


def run(command: Estimate) -> None:
    """Run the command `estimate`. Raises UserError if no render recipe fits the canvas."""
    with tempfile.TemporaryDirectory(dir=command.out, prefix="hms-estimate-") as folder:
        lines = [*estimated(command, Path(folder))]
    if command.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=1))
        return
    print("\n".join(map(str, lines)))


def estimated(command: Estimate, folder: Path) -> Iterator[Line]:
    """Measure in `folder`, and yield the estimates."""
    config = _measured_config(command, folder)
    if command.shards:
        manifest, _ = open_set(command.shards)
        bytes_a_row = sum(entry["num_bytes"] for entry in manifest.files) / manifest.num_samples
        yield Line("disk of the shard set", bytes_a_row * command.rows / 1e9, "GB", f"measured: {command.shards}")
    else:
        rendered = rendering_cost(command.render or fitting_recipe(command), folder, num_rows=config.global_batch)
        yield from _rendering_lines(command, rendered)
    yield from _training_lines(command, step_cost(config))
    yield from _stated_lines(command)


def fitting_recipe(command: Estimate) -> RenderConfig:
    """Return the packaged render recipe with the fewest panels that fits the canvas. Raises UserError if none does."""
    recipes = [load(RenderConfig, ["--config", name]) for name in names("render")]
    for recipe in sorted(recipes, key=lambda one: len(one.panels)):
        try:
            Canvas(
                command.canvas, {name: panel.spec for name, panel in recipe.panels.items()},
                flips=command.flip_probability > 0,
            )  # fmt: skip
        except UserError:
            continue
        return recipe
    raise UserError("render: no packaged recipe has the panels of this canvas; name yours: --render FILE.yaml")


def _measured_config(command: Estimate, folder: Path) -> TrainConfig:
    """Return the run to take steps of: the same network, arithmetic and augmentation, on any rows.

    On a GPU a step has the rows of one rank; on a CPU, where they would take minutes, one group.
    """
    on_gpu = torch.cuda.is_available()
    values = {one.name: getattr(command, one.name) for one in dataclasses.fields(TrainConfig)}
    plain = ("fold", "selection", "filters", "overlay", "locality", "stages", "init", "left_out_folds", "trackers")
    defaults = {one.name: one.default for one in dataclasses.fields(TrainConfig) if one.name in plain}
    defaults |= {
        one.name: one.default_factory()
        for one in dataclasses.fields(TrainConfig)
        if one.name in plain and one.default_factory is not dataclasses.MISSING
    }
    num_steps = command.epochs * command.rows // command.global_batch
    return TrainConfig(
        **{
            **values,
            **defaults,
            "shards": command.shards or str(folder / "shards"),
            "out": folder / "run",
            "fold": "none",
            "model": dataclasses.replace(command.model, weights="none"),
            "epochs": 8 if on_gpu else 2,
            "global_batch": _rows_of_a_rank(command) if on_gpu else command.group_size,
            "compile_mode": compile_mode(command, num_steps, torch.device("cuda" if on_gpu else "cpu")),
        }
    )


def _rows_of_a_rank(command: Estimate) -> int:
    """The rows of a rank, in whole groups."""
    return max(command.global_batch // command.num_gpus // command.group_size, 1) * command.group_size


def _rendering_lines(command: Estimate, cost: RenderCost) -> Iterator[Line]:
    source = f"measured here: {cost.num_rows} rows of {cost.num_recordings} simulated recordings"
    yield Line("disk of the shard set", cost.bytes_a_row * command.rows / 1e9, "GB", source)
    yield Line(
        "rendering, on one core", cost.seconds_a_row * command.rows / 3600, "h",
        f"{source}, {cost.seconds_a_row * 1000:.1f} ms per row",
    )  # fmt: skip
    yield Line(
        "the same, one row per EEG", cost.seconds_an_eeg * command.rows / 3600, "h",
        f"measured here: {cost.num_recordings} rows, {cost.seconds_an_eeg * 1000:.1f} ms per row",
    )  # fmt: skip


def _training_lines(command: Estimate, cost: StepCost) -> Iterator[Line]:
    on_cpu = cost.device == "cpu"
    share, kept = command.global_batch / command.num_gpus, cost.kept_bytes / cost.num_rows
    if on_cpu:
        gigabytes = (cost.fixed_bytes + kept * share) / 1e9
        source = (
            f"computed: {cost.fixed_bytes / 1e9:.2f} GB of weights, gradients and moments; {kept / 1e6:.0f} MB per row"
            f", counted here on the CPU, that the backward pass of {share:g} rows keeps"
        )
    else:
        gigabytes = cost.peak_bytes / 1e9
        source = f"measured here: peak of steps of {cost.num_rows} rows on {cost.device}"
    yield Line("memory of each GPU", gigabytes, "GB", source)
    seconds_a_row, seconds_predicted = cost.seconds / cost.num_rows, cost.seconds_predicted / cost.num_rows
    place, num_ranks = ("one core of this CPU", 1) if on_cpu else (cost.device, command.num_gpus)
    held_out = 0 if command.fold == "none" else command.rows / command.num_folds
    trained = command.rows - held_out - len(command.left_out_folds) * command.rows / command.num_folds
    seconds = num_epochs(command) * (trained * seconds_a_row + held_out * seconds_predicted) / num_ranks
    yield Line(
        f"training, {num_epochs(command)} epochs", seconds / 3600, "h",
        f"measured here: {1 / seconds_a_row:.3g} rows/s on {place}",
    )  # fmt: skip
    yield Line(
        "prediction, no mirror images", seconds_predicted * command.rows / num_ranks / 3600, "h",
        f"measured here: {1 / seconds_predicted:.3g} rows/s on {place}",
    )  # fmt: skip


def num_epochs(command: TrainConfig) -> int:
    """Epochs of all stages."""
    return sum(stage.epochs or command.epochs for stage in command.stages) or command.epochs


def _stated_lines(command: Estimate) -> Iterator[Line]:
    for stated in STATED:
        size = command.canvas.height, command.canvas.width
        if command.model.name.partition(".")[0] == stated.model and size == stated.size:
            hours = num_epochs(command) * command.rows / stated.images_per_s / 3600
            yield Line("training on an H200", hours, "h", f"stated: {stated.images_per_s:,} images/s, {STATED_ON}")
            yield Line("memory of an H200", stated.gigabytes, "GB", f"stated: {STATED_ON}")
