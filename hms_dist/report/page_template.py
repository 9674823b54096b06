"""Templates of the page (templates/), which escape all text that is not HTML already."""

import hashlib
from base64 import b64encode
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.globals["zip"] = partial(zip, strict=True)
_SCRIPT = files(__package__).joinpath("templates/page.js").read_text(encoding="utf-8")
_TEMPLATES.globals["script"] = Markup(_SCRIPT)
_TEMPLATES.globals["script_hash"] = "sha256-" + b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()


def rendered(template: str, **values: Any) -> str:
    """Fill a template with values."""
    return _TEMPLATES.get_template(template).render(values)


def macro(template: str, name: str, **values: Any) -> Markup:
    """Call a template's macro, which makes a part of the page."""
    return Markup(getattr(_TEMPLATES.get_template(template).module, name)(**values))
