"""Names of timm models: from its registry, from the Hugging Face hub, or folders with a model."""

import difflib
from pathlib import Path

from hms_dist.core.errors import UserError
from hms_dist.core.plugins import HINT

HUB, FOLDER = "hf-hub", "local-dir"
"""Prefixes of the names of hub models (hf-hub:OWNER/MODEL) and of folders."""
CONFIG = "config.json"
"""File in such a folder with the architecture and its arguments."""


def source_of(name: str) -> str | None:
    """Return HUB or FOLDER for a name with that prefix; None for a name of timm's registry."""
    source = name.partition(":")[0].lower().replace("_", "-")
    return source if ":" in name and source in (HUB, FOLDER) else None


def check_name(name: str) -> None:
    """Raise UserError if timm, or the folder, has no such model. Never uses the network."""
    import timm  # importing timm takes seconds

    source = source_of(name)
    if source == FOLDER and not (folder := Path(name.partition(":")[2])).joinpath(CONFIG).is_file():
        raise UserError(
            f"model.name: {folder / CONFIG}: no such file; expected a folder that timm.models.save_for_hf wrote"
        )
    if source is not None:
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.4)
        hint = f"; a model of the hub is {HUB}:OWNER/MODEL, a folder {FOLDER}:FOLDER" if {*":/"} & {*name} else ""
        raise UserError(
            f"model.name: timm has no model '{name}'; close to it: {', '.join(close) or 'none'}{hint}{HINT}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(
            f"model.name: timm has no weights '{tag}' of {architecture}; it has: {', '.join(tags) or 'none'}"
        )
