"""Extension of griffe, for mkdocstrings: `<name>` in a docstring is text, not HTML."""

import re
from typing import Any

from griffe import Extension, Object


class Escaped(Extension):
    """Escapes angle brackets outside of code in the docstring of every object."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe for each object that it has read."""
        if obj.docstring is not None:
            parts = re.split(r"(`[^`]*`)", obj.docstring.value)
            obj.docstring.value = "".join(part if part[:1] == "`" else part.replace("<", "&lt;") for part in parts)
