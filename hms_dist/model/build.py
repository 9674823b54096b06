"""A timm model with a new head, from a configuration: the same weights for the same seed, wherever built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hms_dist.core.errors import UserError, first_line
from hms_dist.model.arguments import check_kwargs, constructor_arguments
from hms_dist.model.names import FOLDER, check_name, source_of
from hms_dist.model.sliding_window import SlidingWindowConfig, SlidingWindowNet, at_stride_16, of_backbone
from hms_dist.model.weights import (
    PACKAGE_MODEL,
    adapt_weights,
    check_there,
    fit_weights,
    head_names,
    mapped_head,
    package_weights,
    read_weights,
)

WEIGHTS = ("none", "hub", "package")
"""Words for `ModelConfig.weights`; anything else is a path."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Endings of files with weights."""
CompileMode = Literal["default", "max-autotune-no-cudagraphs"]
"""Modes of torch.compile."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """An image model of timm: its name, where its weights come from, how it is regularised."""

    name: str = "tf_efficientnet_b0"
    """timm's model name, with or without the tag of its weights (tiny_vit_21m_512.dist_in22k_ft_in1k); or
    hf-hub:OWNER/MODEL, whose files timm downloads from the Hugging Face hub; or local-dir:FOLDER with such files."""
    weights: str = "none"
    """Where weights come from. none: random, keyed by the seed. hub: timm's pretrained ones (needs the network the
    first time), of a local-dir: name those of the folder. package: ImageNet weights of the `weights` extra, for
    tf_efficientnet_lite0. Else a path to a .safetensors or .pth file; its classifier is kept if it has as many
    classes."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm's constructor, by name. `img_size: canvas` gives the canvas's height and width to
    models of a fixed input size, such as ViT and Swin."""
    drop_rate: float | None = None
    """Dropout before the classifier, a probability. None: the model's own default; 0: none."""
    drop_path_rate: float | None = None
    """Stochastic depth: probability to skip the last block, rising linearly from 0 at the first. None: the
    model's own default; 0: none."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    sliding_window: SlidingWindowConfig | None = None
    """Slide the model's head along time, a net of its own kind (seed 004). None: one answer for the whole picture."""

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS and not self.weights.endswith(SUFFIXES):
            raise ValueError(
                f"weights: unknown '{self.weights}'; one of: {', '.join(WEIGHTS)}, or a path ending in "
                f"{', '.join(SUFFIXES)}"
            )
        if self.weights == "package" and self.name.partition(".")[0] != PACKAGE_MODEL:
            raise ValueError(
                f"weights: 'package' (the `weights` extra) holds weights of {PACKAGE_MODEL} only, name is "
                f"'{self.name}'; set name: {PACKAGE_MODEL}, or weights: hub, a path or none"
            )
        check_kwargs(self.kwargs)
        for option in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, option)
            if rate is not None and not 0 <= rate < 1:
                raise ValueError(f"{option}: expected a probability in [0, 1), found {rate}")


def build(
    config: ModelConfig,
    seed: int,
    num_classes: int = 6,
    in_chans: int = 1,
    *,
    size: tuple[int, int] | None = None,
    class_names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> nn.Module:
    """The model, float32 on the CPU in training mode: images (batch, in_chans, height, width) -> logits
    (batch, num_classes). With `sliding_window`, a `SlidingWindowNet`. `size`: height and width of the canvas, which
    `img_size: canvas` needs.

    `class_names`: those of the network that the weights are of, and of this one; None: the classifier is kept if it has
    as many classes. Whatever weights are not loaded are drawn from `seed` alone, and the global generators stay as they
    were.
    Raises UserError for an unknown name, an option that the model lacks, or weights that cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = _create(config, num_classes, in_chans, size)
    if config.weights not in ("none", "hub"):
        if config.weights == "package":
            state, source = package_weights(model.state_dict()), "weights extra"
        else:
            state, source = of_backbone(read_weights(Path(config.weights))), config.weights
            if class_names is not None and class_names[0] != class_names[1]:
                state = mapped_head(model, state, *class_names)
        fit_weights(model, adapt_weights(model, state, in_chans), source, optional=head_names(model))
    return model if config.sliding_window is None else SlidingWindowNet(model)


def outline(config: ModelConfig, size: tuple[int, int]) -> nn.Module:
    """The model without its numbers, on torch's meta device: shapes alone, no weights. Raises as `build` does."""
    config = replace(config, weights="none")
    try:
        with torch.device("meta"):
            return build(config, seed=0, size=size)
    except Exception as error:
        if isinstance(error.__cause__, OSError):  # the network's
            raise
    # The model's fault, or the meta device's: a constructor that computes with its numbers.
    return build(config, seed=0, size=size).to("meta")


def _create(config: ModelConfig, num_classes: int, in_chans: int, size: tuple[int, int] | None) -> nn.Module:
    import timm  # takes seconds

    from hms_dist.model.convolutions import fast_convolutions
    from hms_dist.model.tiny_vit.blocks import fast_blocks

    check_name(config.name)
    rates = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    options: dict[str, Any] = {name: rate for name, rate in rates.items() if rate is not None}
    options |= constructor_arguments(config.kwargs, size)
    hub = config.weights == "hub"
    try:
        create = partial(
            timm.create_model, config.name, pretrained=hub, num_classes=num_classes, in_chans=in_chans, **options
        )
        model: nn.Module = create() if config.sliding_window is None else at_stride_16(config.name, create)
        if config.grad_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]
    except Exception as error:  # timm, its hub client and the network each raise their own kinds
        explained = _explained(error, config)
        if explained is None:
            raise
        raise explained from error
    return fast_convolutions(fast_blocks(model.train()))


def compile_in_place(model: nn.Module, mode: CompileMode | None) -> None:
    """Have torch compile `model` when it first runs, unless `mode` is None. The names of its state stay.

    For each size of a group by itself: at code for any height and width the compiler fails where operators want
    memory in one order.
    """
    if mode is not None:
        model.compile(mode=mode, dynamic=False)


def check_weights(config: ModelConfig) -> None:
    """Raises UserError for a path of weights without a file."""
    if config.weights not in WEIGHTS:
        check_there(Path(config.weights))


def _explained(error: Exception, config: ModelConfig) -> UserError | None:
    """The user's error behind `error`; None if it is not the user's."""
    text, source, message = first_line(error), source_of(config.name), ""
    said = f"({type(error).__name__}: {text})"
    rates = [option for option in ("drop_path_rate", "drop_rate") if f"'{option}'" in text]
    if isinstance(error, UserError):
        pass  # it explains itself
    elif isinstance(error, TypeError) and rates:
        message = f"model.{rates[0]}: {config.name} has no such option; leave it out (null)"
    elif config.kwargs and not isinstance(error, OSError) and (config.weights != "hub" or isinstance(error, TypeError)):
        message = (
            f"model.kwargs: {config.name} cannot be built with {_some(config.kwargs)} {said}; give arguments of timm's "
            "constructor of this model"
        )
    elif config.grad_checkpointing and isinstance(error, AssertionError | AttributeError):
        message = f"model.grad_checkpointing: {config.name} cannot recompute activations; set it to false"
    elif source is not None:
        hint = "expected timm's config.json and weights there" if source == FOLDER else "check the name and the network"
        message = f"model.name: no model of '{config.name}' {said}; {hint}"
    elif config.weights == "hub":
        message = (
            f"model.weights: no weights of {config.name} from the hub {said}; check the network, or give a "
            ".safetensors file, package or none"
        )
    return UserError(message) if message else None


def _some(kwargs: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}: {value}" for name, value in kwargs.items())
    return text if len(text) <= 200 else f"{text[:197]}..."
