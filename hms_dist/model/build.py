"""Build a timm model with a new head from a configuration; the initial weights depend on the seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import digest
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
"""Keywords of `ModelConfig.weights`; other values are paths."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""File extensions of weights."""
CompileMode = Literal["default", "max-autotune-no-cudagraphs"]
"""Modes of torch.compile that can be configured."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """An image model of timm: name, initial weights, regularisation."""

    name: str = "tf_efficientnet_b0"
    """timm's model name, with or without the tag of its weights (tiny_vit_21m_512.dist_in22k_ft_in1k); or
    hf-hub:OWNER/MODEL, whose files timm downloads from the Hugging Face hub; or local-dir:FOLDER with such files."""
    weights: str = "none"
    """Initial weights. none: random, from the seed. hub: timm's pretrained weights (the first use needs the network),
    or those of the folder for a local-dir: name. package: ImageNet weights of the extra `weights`, for
    tf_efficientnet_lite0. Otherwise the path of a .safetensors or .pth file, whose classifier is loaded if it has the
    same number of classes."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Additional arguments of timm's constructor, by name. `img_size: canvas` passes height and width of the canvas to
    models with a fixed input size, such as ViT and Swin."""
    drop_rate: float | None = None
    """Probability of dropout before the classifier. None: the model's default; 0: no dropout."""
    drop_path_rate: float | None = None
    """Stochastic depth: probability to skip the last block; it increases linearly from 0 at the first block. None: the
    model's default; 0: none."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: uses less memory and about a third more time."""
    sliding_window: SlidingWindowConfig | None = None
    """Apply the model's head to windows along time (the bird-call detector). None: one prediction for the whole
    image."""

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
    """Build the model, in float32 on the CPU, in training mode: images (batch, in_chans, height, width) -> logits
    (batch, num_classes). With `sliding_window` it is a `SlidingWindowNet`. `size`: height and width of the canvas,
    needed by `img_size: canvas`.

    `class_names`: those of the network that the weights come from, and of this one; None: the classifier is loaded if
    it has as many classes. Weights that are not loaded are drawn from `seed` alone; the global random generators are
    not changed. Raises UserError for an unknown name, an option that the model lacks, or weights that cannot be loaded.
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
    """Build the model on torch's meta device, with shapes but without weights. Raises as `build` does."""
    config = replace(config, weights="none")
    try:
        with torch.device("meta"):
            return build(config, seed=0, size=size)
    except Exception as error:
        if isinstance(error.__cause__, OSError):  # a network error
            raise
    # Either the model cannot be built, or its constructor computes with values, which the meta device lacks.
    return build(config, seed=0, size=size).to("meta")


def _create(config: ModelConfig, num_classes: int, in_chans: int, size: tuple[int, int] | None) -> nn.Module:
    import timm  # importing it takes seconds

    from hms_dist.model.convolutions import fast_convolutions
    from hms_dist.model.tiny_vit.attention_index import fast_attention_index
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
        with fast_attention_index():
            model: nn.Module = create() if config.sliding_window is None else at_stride_16(config.name, create)
        if config.grad_checkpointing:
            model.set_grad_checkpointing()  # type: ignore[operator]
    except Exception as error:  # timm, its hub client and the network raise different classes
        explained = _explained(error, config)
        if explained is None:
            raise
        raise explained from error
    return fast_convolutions(fast_blocks(model.train()))


def compile_in_place(model: nn.Module, mode: CompileMode | None) -> None:
    """Compile `model` at its first call, unless `mode` is None. The names of its state dict do not change.

    Each input shape is compiled separately (dynamic=False): with dynamic shapes, the compiler fails for operators that
    need a fixed memory format. Torch caches compiled code on the disk (TORCHINDUCTOR_CACHE_DIR). Here it caches
    that of custom autograd functions too, which it excludes by default, and the key includes the source of this
    package's operators.
    """
    if mode is None:
        return
    import torch._functorch.config as autograd_cache
    import torch.compiler.config as compiler

    autograd_cache.autograd_cache_allow_custom_autograd_functions = True
    compiler.cache_key_tag = f"hms_dist {_code_digest()}"
    model.compile(mode=mode, dynamic=False)


def _code_digest() -> str:
    """Digest of the source of this folder: gradients of its operators are not part of torch's cache keys."""
    folder = Path(__file__).parent
    return digest([path.read_text() for path in sorted(folder.rglob("*.py"))])


def check_weights(config: ModelConfig) -> None:
    """Raise UserError if `weights` is the path of a missing file."""
    if config.weights not in WEIGHTS:
        check_there(Path(config.weights))


def _explained(error: Exception, config: ModelConfig) -> UserError | None:
    """Convert an error of timm to a UserError; None if it is not a user error."""
    text, source, message = first_line(error), source_of(config.name), ""
    reason = f"({type(error).__name__}: {text})"
    rates = [option for option in ("drop_path_rate", "drop_rate") if f"'{option}'" in text]
    if isinstance(error, UserError):
        pass  # it is one already
    elif isinstance(error, TypeError) and rates:
        message = f"model.{rates[0]}: {config.name} has no such option; leave it out (null)"
    elif config.kwargs and not isinstance(error, OSError) and (config.weights != "hub" or isinstance(error, TypeError)):
        message = (
            f"model.kwargs: {config.name} cannot be built with {_some(config.kwargs)} {reason}; give arguments of "
            "timm's constructor of this model"
        )
    elif config.grad_checkpointing and isinstance(error, AssertionError | AttributeError):
        message = f"model.grad_checkpointing: {config.name} cannot recompute activations; set it to false"
    elif source is not None:
        hint = "expected timm's config.json and weights there" if source == FOLDER else "check the name and the network"
        message = f"model.name: no model of '{config.name}' {reason}; {hint}"
    elif config.weights == "hub":
        message = (
            f"model.weights: no weights of {config.name} from the hub {reason}; check the network, or give a "
            ".safetensors file, package or none"
        )
    return UserError(message) if message else None


def _some(kwargs: Mapping[str, Any]) -> str:
    text = ", ".join(f"{name}: {value}" for name, value in kwargs.items())
    return text if len(text) <= 200 else f"{text[:197]}..."
