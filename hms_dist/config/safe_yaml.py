"""YAML of configurations: safe loading within limits, and writing that round-trips."""

import datetime
import re
from pathlib import Path
from typing import Any

import yaml

from hms_dist.core import limits
from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import check_sealed_text, read_bytes


class _Strict(yaml.SafeLoader):
    """Loader that rejects what PyYAML silently accepts: duplicate keys, and 12:00:00 read as 43200."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in names:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key.value}'", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Construct an int or a float."""
        if ":" in node.value:
            text = f"{node.value} is a number to base 60 in YAML; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Strict.add_constructor(f"tag:yaml.org,2002:{_tag}", _Strict.construct_number)


class _Numeric(_Strict):
    """Loader with jsonargparse's rules: 1e-4 is a number, a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in _Strict.yaml_implicit_resolvers.items()
    }


class _NumericDumper(yaml.SafeDumper):
    """Dumper that quotes text which `_Numeric` would read as a number, and writes no aliases."""

    yaml_implicit_resolvers = _Numeric.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]\d+)?|\.(inf|Inf|INF))$"
    r"|\.(nan|NaN|NAN)$"
)
_Numeric.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(path: Path) -> Any:
    """Safe-load a YAML file. Raises UserError if it is missing, invalid, or exceeds `limits`."""
    try:
        return parse_yaml(read_bytes(path, limits.YAML_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration file ({error}); check the path") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def read_record(path: Path) -> Any:
    """Read a YAML file that a command wrote for later ones. Raises UserError if it is missing or was changed."""
    value = read_yaml(path)
    check_sealed_text(path)
    return value


def parse_yaml(text: str) -> Any:
    """Parse YAML text. Raises yaml.YAMLError if it is invalid or exceeds `limits`."""
    try:
        value = yaml.load(text, _Numeric)
        if too_many := _too_many(value):
            raise yaml.YAMLError(too_many)
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError("lists or mappings are nested too deeply") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:  # such as an invalid date
        raise yaml.YAMLError(first_line(error)) from error
    return value


def yaml_text(value: Any, *, flow: bool = False) -> str:
    """Write plain values as YAML that both this module and jsonargparse read alike; `flow`: on one line."""
    return yaml.dump(value, Dumper=_NumericDumper, default_flow_style=flow, width=float("inf"), sort_keys=False)


def _too_many(value: Any) -> str:
    """Explain why a value exceeds the limits after its aliases are expanded; empty if it does not."""
    level, total = [value], 0
    for _ in range(limits.YAML_DEPTH):
        total += len(level)
        if total > limits.YAML_VALUES:
            return f"more than {limits.YAML_VALUES} values"
        nested: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                nested += one.values()
            elif isinstance(one, list):
                nested += one
            elif not isinstance(one, str | int | float | None | datetime.date):
                return f"expected numbers, texts, lists and mappings, found {type(one).__name__}"
            if len(nested) > limits.YAML_VALUES:
                return f"more than {limits.YAML_VALUES} values"
        level = nested
        if not level:
            return ""
    return f"more than {limits.YAML_DEPTH} lists or mappings within one another"
