"""`model.kwargs`: further arguments of timm's constructors, as plain values."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

CANVAS = "canvas"
"""Value of `img_size` that is replaced by the height and width of the canvas."""
_WEIGHTS = "model.weights and model.name decide which weights are loaded"
_REFUSED: Mapping[str, str] = {
    "num_classes": "the data set has the classes",
    "in_chans": "a canvas has one channel",
    "drop_rate": "use model.drop_rate",
    "drop_path_rate": "use model.drop_path_rate",
    "features_only": "the model must return logits",
    "device": "the launcher decides",
    "dtype": "use precision",
    **dict.fromkeys(
        (
            "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict",
            "pretrained_filter_fn", "pretrained_model_args", "checkpoint_path", "cache_dir",
        ),
        _WEIGHTS,
    ),
}  # fmt: skip
"""Arguments that other options determine -> the reason given in the error."""


def check_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments that other options determine, and for values that are not plain."""
    for name, value in kwargs.items():
        if name in _REFUSED:
            raise ValueError(f"model.kwargs: '{name}' cannot be set here: {_REFUSED[name]}; leave it out")
        if not name.isidentifier():
            raise ValueError(f"model.kwargs: expected names of arguments of timm's constructor, found '{name}'")
        if not _is_plain(value):
            raise ValueError(
                f"model.kwargs.{name}: expected a number, a word, or lists or mappings of them, found {value!r}"
            )
    size = kwargs.get("img_size")
    if size not in (None, CANVAS) and not (_is_size(size) or (_is_list(size, 2) and all(map(_is_size, size)))):
        raise ValueError(
            f"model.kwargs.img_size: expected {CANVAS}, a number of pixels or [height, width], found {size!r}"
        )


def constructor_arguments(kwargs: Mapping[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    """Convert the arguments for timm: lists to tuples, and `img_size` CANVAS to `size` (height, width).

    Raises ValueError for CANVAS without a size.
    """
    found = {name: _as_tuples(value) for name, value in kwargs.items()}
    if found.get("img_size") == CANVAS:
        if size is None:
            raise ValueError(f"img_size: {CANVAS} needs the size of the canvas")
        found["img_size"] = size
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _as_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_tuples(item) for name, item in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value
