"""Export of a run's weights for plain timm: safetensors, a model card, and on request a program of torch.export.

The exported network is rebuilt with timm from the card, as the card's snippet does, and its logits are compared with
the run's before anything is written.
"""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hms_dist.config.load import to_dict
from hms_dist.core.environment import versions
from hms_dist.core.errors import JobError, UserError, first_line
from hms_dist.core.files import atomic, sha256_of, write_json
from hms_dist.core.plugins import loaded_plugins
from hms_dist.model.arguments import constructor_arguments
from hms_dist.model.loss import LOSSES
from hms_dist.model.sliding_window import SlidingWindowNet, of_backbone, window_weights
from hms_dist.train.folder.model_card import CARD_NAME, CARD_TEXT_NAME, read_card, read_card_text
from hms_dist.train.folder.record import CONFIG_NAME
from hms_dist.train.task import AnnotatedWindow

if TYPE_CHECKING:
    from hms_dist.api.run_model import RunModel

WEIGHTS_NAME, PROGRAM_NAME = "model.safetensors", "model.pt2"
PROBABILITIES = {
    "softmax": "logits.softmax(-1)",
    "sigmoid": "logits.sigmoid()",
    "normalised_sigmoid": "logits.sigmoid() / logits.sigmoid().sum(-1, keepdim=True)",
}
"""Function of a loss -> the same in the snippet."""
TOLERANCE = 1e-3
"""Largest difference of two logits of one picture, relative to the largest logit (at least 1)."""


class _Window(nn.Module):
    """The annotated window of a sliding-window network, as the card's snippet computes it."""

    def __init__(self, backbone: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits [n, classes] of images [n, 1, height, width]."""
        columns = self.backbone.forward_features(images) * self.weights
        logits: Tensor = self.backbone.forward_head(columns.sum(-1, keepdim=True))
        return logits


def export_model(model: "RunModel", out: Path, *, program: bool = False) -> Path:
    """Write weights, model card (as JSON; also as Markdown, where the run wrote one with its weights) and, with
    `program`, a program of torch.export; return the card's path.

    `out`: a folder, or the .safetensors file to write, with the card beside it. The program takes float32 images
    [n, 1, height, width] of any n. Raises UserError for a place that cannot be written, an architecture that plain timm
    does not rebuild, or one that torch.export cannot trace; JobError if the rebuilt network gives other logits.
    """
    folder, name = (out.parent, out.name) if out.suffix == ".safetensors" else (out, WEIGHTS_NAME)
    if (folder / CONFIG_NAME).exists() or folder.is_file():
        raise UserError(f"{folder}: belongs to a run, or is a file; choose another folder")
    network = copy.deepcopy(model.network).cpu().float().eval()
    state = {key: tensor.contiguous() for key, tensor in of_backbone(network.state_dict()).items()}
    card = _card(model, network, name)
    plain = _rebuilt(card, state)
    images = torch.rand(3, 1, *card["input_size"], generator=torch.Generator().manual_seed(0))
    _check("timm's network", plain, images, _logits(model, network, images))
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / name) as file:
        file.write(safetensors.torch.save(state, {"format": "pt"}))
    card["sha256"] = sha256_of(folder / name)
    if program:
        card["program"] = PROGRAM_NAME
        _write_program(folder / PROGRAM_NAME, plain, images)
    write_json(folder / CARD_NAME, card)
    text = read_card_text(model.weights_folder)
    if text is not None:
        with atomic(folder / CARD_TEXT_NAME, "w") as file:
            file.write(text)
    return folder / CARD_NAME


def _card(model: "RunModel", network: nn.Module, weights: str) -> dict[str, Any]:
    config, size = model.config, (model.canvas.height, model.canvas.width)
    arguments = {
        "num_classes": len(model.classes), "in_chans": 1, **constructor_arguments(config.model.kwargs, size)
    }  # fmt: skip
    has_pool = True
    if isinstance(network, SlidingWindowNet):
        has_pool = not isinstance(getattr(network.backbone, "maxpool", None), nn.Identity)
        if has_pool:
            arguments["output_stride"] = 16
    card: dict[str, Any] = {
        **(read_card(model.weights_folder) or {}),
        "architecture": config.model.name,
        "arguments": json.loads(json.dumps(arguments)),
        "weights": weights,
        "in_chans": 1,
        "input_size": list(size),
        "classes": list(model.classes),
        "logits": "one a class",
        "canvas": to_dict(model.canvas),
        "panels": to_dict(model.panels),
        "run": {"name": model.run.resolve().name, "weights": model.weights_folder.name, "seed": config.seed,
                "fold": config.fold, "num_folds": config.num_folds},
        "versions": versions(),
        "plugins": loaded_plugins(),
    }  # fmt: skip
    if isinstance(model.task, AnnotatedWindow):
        card["logits"] = "one a class, of the annotated window"
        card["window_weights"] = _window(model.task).tolist()
        card["removed_layers"] = [] if has_pool else ["maxpool"]
    card["snippet"] = _snippet(card, PROBABILITIES.get(LOSSES[config.loss.name].probabilities.__name__))
    return card


def _snippet(card: dict[str, Any], probabilities: str | None) -> list[str]:
    """Lines that compute logits of `images` [n, 1, height, width] with timm alone, next to the card."""
    lines = [", ".join(["import json", "timm", "torch", *loaded_plugins()]), f'card = json.load(open("{CARD_NAME}"))']
    lines.append(
        'model = timm.create_model(card["architecture"], checkpoint_path=card["weights"], **card["arguments"])'
    )
    if "window_weights" in card:
        lines += [f"model.{layer} = torch.nn.Identity()" for layer in card["removed_layers"]]
        lines.append('columns = model.eval().forward_features(images) * torch.tensor(card["window_weights"])')
        lines.append("logits = model.forward_head(columns.sum(-1, keepdim=True))")
    else:
        lines.append("logits = model.eval()(images)")
    return lines if probabilities is None else [*lines, f"probabilities = {probabilities}"]


def _rebuilt(card: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """Build the network from its card with plain timm, in evaluation mode."""
    import timm

    try:
        model = timm.create_model(card["architecture"], **card["arguments"])
        model.load_state_dict(state)
    except Exception as error:  # timm and its models raise different classes
        raise UserError(f"{card['architecture']}: plain timm does not rebuild it ({first_line(error)})") from error
    for layer in card.get("removed_layers", ()):
        setattr(model, layer, nn.Identity())
    model.eval()
    return _Window(model, torch.tensor(card["window_weights"])) if "window_weights" in card else model


def _window(task: AnnotatedWindow) -> Tensor:
    """Weight of each column of features in the annotated window, float32 [columns]."""
    left = torch.tensor(task.window[0], dtype=torch.float64)
    return window_weights(left, task.window[1] - task.window[0], task.width).float()


@torch.no_grad()
def _logits(model: "RunModel", network: nn.Module, images: Tensor) -> Tensor:
    """Logits [n, classes] of a run's network."""
    if isinstance(model.task, AnnotatedWindow):
        found: Tensor = network(images, _window(model.task)[None, None])[:, 0]
    else:
        found = network(images)
    return found


@torch.no_grad()
def _check(what: str, network: Any, images: Tensor, expected: Tensor) -> None:
    """Raise JobError if the logits of images, together or one by one, are not those expected."""
    for part in (slice(0, len(images)), slice(0, 1), slice(0, 2)):
        found = network(images[part])
        difference = float((found - expected[part]).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise JobError(f"{what} gives other logits: a difference of {difference:.3g}; nothing was exported")


def _write_program(path: Path, network: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        expected: Tensor = network(images)
    try:
        traced = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    except Exception as error:  # torch raises a different class for each operator that it cannot trace
        raise UserError(f"torch.export: cannot trace this network ({first_line(error)}); leave program out") from error
    _check("the exported program", traced.module(), images, expected)
    with atomic(path) as file:
        torch.export.save(traced, file)
