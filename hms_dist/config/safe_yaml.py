"""YAML of configurations: read safely and within limits, written so that it is read back as it was."""

import datetime
import re
from pathlib import Path
from typing import Any

import yaml

from hms_dist.core import limits
from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import check_text, read_bytes


class _Strict(yaml.SafeLoader):
    """Refuses what YAML's readers take without a word: a name twice in one mapping, and 12:00:00 for 43200."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in names:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key.value}'", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """An int or a float."""
        if ":" in node.value:
            text = f"{node.value} is a number to base 60 in YAML; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Strict.add_constructor(f"tag:yaml.org,2002:{_tag}", _Strict.construct_number)


class _Numeric(_Strict):
    """Reads as jsonargparse does: 1e-4 is a number, a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in _Strict.yaml_implicit_resolvers.items()
    }


class _NumericDumper(yaml.SafeDumper):
    """Writes text in quotes where `_Numeric` would read it as a number; never an alias for a value."""

    yaml_implicit_resolvers = _Numeric.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]\d+)?|\.(inf|Inf|INF))$"
    r"|\.(nan|NaN|NAN)$"
)
_Numeric.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(path: Path) -> Any:
    """Safe-load one YAML file; UserError if it is missing, not YAML, or too large (`limits`)."""
    try:
        return parse_yaml(read_bytes(path, limits.YAML_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration file ({error}); check the path") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def read_record(path: Path) -> Any:
    """Read a YAML file that a command wrote for later ones. Raises UserError if it is missing or was changed since."""
    value = read_yaml(path)
    check_text(path)
    return value


def parse_yaml(text: str) -> Any:
    """The value of YAML text. Raises yaml.YAMLError for anything else, and for more than `limits` allows."""
    try:
        value = yaml.load(text, _Numeric)
        if too_many := _too_many(value):
            raise yaml.YAMLError(too_many)
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError("lists or mappings lie too deep in one another") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:  # an invalid date, and the like
        raise yaml.YAMLError(first_line(error)) from error
    return value


def yaml_text(value: Any, *, flow: bool = False) -> str:
    """Plain values as YAML that both readers of configurations, ours and the parser's, read alike; `flow`: one line."""
    return yaml.dump(value, Dumper=_NumericDumper, default_flow_style=flow, width=float("inf"), sort_keys=False)


def _too_many(value: Any) -> str:
    """Why a value takes more than it may once its aliases are replaced by what they stand for; empty if it does not."""
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
