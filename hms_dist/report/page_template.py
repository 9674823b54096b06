"""Templates of the page (templates/), which escape all text that is not HTML already."""

from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.globals["zip"] = partial(zip, strict=True)


def rendered(template: str, **values: Any) -> str:
    """Fill a template with values."""
    return _TEMPLATES.get_template(template).render(values)


def macro(template: str, name: str, **values: Any) -> Markup:
    """Call a template's macro, which makes a part of the page."""
    return Markup(getattr(_TEMPLATES.get_template(template).module, name)(**values))
