"""Format of stored configurations: its version, and the meaning of files of earlier versions.

A stored configuration is fully resolved, names classes by their bare names and carries `format_version`. Files are
compared by their meaning, so code may move and options may be added:

- A new option has a default that reproduces the earlier behaviour. Older files take that default, and the version is
  unchanged. An option of a panel, or of a part of one, also gets an entry in `ABSENT`, because the online half compares
  panels without importing their classes.
- A changed default raises `FORMAT_VERSION` and gets an entry in `ABSENT` for the earlier versions, if their files may
  lack the option.
- A removed option gets an entry in `REMOVED` with the values that have no effect. A file with another value is
  rejected.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hms_dist.core.errors import UserError
from hms_dist.core.plugins import check_plugins

FORMAT_VERSION = 2
"""Version of configurations written now. Version 1 (up to commit 5e6f9d5) had no version key and full class paths."""
VERSION_KEY = "format_version"
PLUGINS_KEY = "plugins"
"""Key of the plug-ins that were loaded when a configuration was stored: import path -> version. Absent: none."""
CLASS_KEY, OPTIONS_KEY = "class_path", "init_args"
"""Keys of a class chosen by name, and of its options."""
ABSENT: Mapping[int, Mapping[str, Mapping[str, Any]]] = {
    1: {"Pcen": {"start": "first_frame"}, "ModelConfig": {"kwargs": {}}}
}
"""Format version -> class -> option (of a part: `part.option`) -> plain value of that option in files of up to this
version that lack it."""
REMOVED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "FreezeConfig": {"num_tensors": (0,), "until_epoch": (None,)},
    "OptimConfig": {"decay_norm_and_bias": (True,), "layer_decay": (1.0,)},
    "TrainConfig": {"batch_norm": ("group",), "channels_last": (False, True)},
    "ScheduleConfig": {"period_steps": (None,), "milestones": ([],)},
}
"""Class -> removed option -> plain values without effect: files with one of them are read as files without the
option."""
_MODULES_OF_1: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "hms_dist.images": {
        "eeg_spectrogram": ("EegSpectrogram",), "kaggle_spectrogram": ("KaggleSpectrogram",),
        "multitaper": ("Multitaper",), "pcen": ("Pcen",), "scalogram": ("Scalogram",), "traces": ("Traces",),
        "wavelet_statistics": ("WaveletStatistics",),
    },
    "hms_dist.canvas.normalise": {
        "affine": ("Affine",), "quantile": ("QuantileLog10",), "standardise": ("DataWide", "Standardise"),
        "wavelet_log": ("WaveletLog",),
    },
}  # fmt: skip
"""Modules of the classes whose digests version 1 stored."""
_PATHS_OF_1 = {
    name: f"{package}.{module}.{name}"
    for package, modules in _MODULES_OF_1.items()
    for module, names in modules.items()
    for name in names
}


def split_version(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], int]:
    """Split a stored configuration into its options and its format version.

    Raises UserError for the version of a later program, and for plug-ins that are not loaded.
    """
    check_plugins(values.get(PLUGINS_KEY), where)
    version = values.get(VERSION_KEY, 1)
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise UserError(
            f"{where}: expected format_version 1 to {FORMAT_VERSION}, found {version!r}; use the version of hms-dist "
            "that wrote the file, or a later one"
        )
    return {name: value for name, value in values.items() if name not in (VERSION_KEY, PLUGINS_KEY)}, version


def bare_name(path: str) -> str:
    """Return the name of a class without its module."""
    return path.rpartition(".")[2]


def with_bare_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration of any version with bare class names."""
    return {VERSION_KEY: values.get(VERSION_KEY, 1), **_map_names(dict(values), bare_name)}


def completed(options: Mapping[str, Any], name: str, version: int) -> dict[str, Any]:
    """Add the options of class `name` that a file of `version` lacks and `ABSENT` lists."""
    found = dict(options)
    for option, value in _absent(name, version).items():
        *parents, last = option.split(".")
        node = found
        for parent in parents:
            node[parent] = dict(node.get(parent) or {})
            node = node[parent]
        node.setdefault(last, value)
    return found


def without_removed(options: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Remove options of class `name` that no longer exist from those of a file.

    Raises UserError if one of them has a value with an effect.
    """
    removed = REMOVED.get(name, {})
    for option, harmless in removed.items():
        if option in options and options[option] not in harmless:
            expected = " or ".join("null" if value is None else str(value) for value in harmless)
            raise UserError(
                f"{where}: the option '{option}' was removed; expected {expected}, found {str(options[option])[:40]}; "
                "use the version of hms-dist that wrote the file, or delete the option from a file of your own"
            )
    return {option: value for option, value in options.items() if option not in removed}


def comparable_class(node: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return a class with its options, from a file of `version`, as plain values for comparison by digest.

    Options added since version 1 are omitted where they have the value of files without them, so the digest stays the
    same as options are added.
    """
    name = bare_name(node[CLASS_KEY])
    options = completed(_map_names(node.get(OPTIONS_KEY) or {}, bare_name), name, version)
    for option, value in _absent(name, 1).items():
        options = _without(options, option.split("."), value)
    return {CLASS_KEY: name, OPTIONS_KEY: options}


def as_version_1(values: Any) -> Any:
    """Return plain values with the full class paths that digests of version 1 used."""
    return _map_names(values, lambda name: _PATHS_OF_1.get(name, name))


def _absent(name: str, version: int) -> dict[str, Any]:
    """Options of class `name` that files of `version` may lack, and their values."""
    found: dict[str, Any] = {}
    for until in sorted(until for until in ABSENT if version <= until):
        found = {**ABSENT[until].get(name, {}), **found}
    return found


def _map_names(node: Any, change: Callable[[str], str]) -> Any:
    """Apply `change` to every class name in plain values."""
    if isinstance(node, Mapping):
        return {
            key: change(item) if key == CLASS_KEY and isinstance(item, str) else _map_names(item, change)
            for key, item in node.items()
        }
    return [_map_names(item, change) for item in node] if isinstance(node, list | tuple) else node


def _without(options: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return `options` without the one at `path` if it has this value."""
    first, *rest = path
    if first not in options:
        return dict(options)
    if rest:
        inner = options[first]
        return {**options, first: _without(inner, rest, value)} if isinstance(inner, Mapping) else dict(options)
    return {name: item for name, item in options.items() if name != first or item != value}
