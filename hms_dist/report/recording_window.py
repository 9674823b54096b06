"""Panels of one window of a recording that is not in a shard set, as pictures."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.datasets import HMS
from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.window import read_window
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.panels.panel import Panel, Window
from hms_dist.report.parts import panel_part
from hms_dist.report.picture import Picture, panel_picture
from hms_dist.report.sheet import Part

_TIME = re.compile(r"([0-9]{1,4}:)?([0-9]{1,4}:)?[0-9]{1,8}(\.[0-9]{1,6})?")


def parse_time(text: str) -> float:
    """Parse seconds, MM:SS or HH:MM:SS. Raises ValueError for anything else."""
    if not _TIME.fullmatch(text):
        raise ValueError(f"at: expected seconds or HH:MM:SS, found '{text[:40]}'")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def recording_parts(path: Path, at_s: float, options: ReadingOptions) -> list[Part]:
    """Draw the default panels of the window around `at_s`. Raises UserError as `read_window`."""
    recording, start = read_window(path, at_s, options)
    window = Window(recording=recording, start=start, spectrogram_offset_s=0.0)
    panels = {name: DEFAULT_PANELS[name] for name in DEFAULT_PANELS if name != "traces_flipped"}
    return [
        panel_part(name, panels[name].spec, stored, HMS, getattr(panels[name], "scales_uv", ()))
        for name, stored in _drawn(panels, window).items()
    ]


def window_pictures(panels: Mapping[str, Panel], window: Window) -> dict[str, Picture]:
    """Draw panels of a window: panel name -> picture [height, width]."""
    return {name: panel_picture(panels[name].spec, stored) for name, stored in _drawn(panels, window).items()}


def _drawn(panels: Mapping[str, Panel], window: Window) -> dict[str, NDArray[Any]]:
    """Panels of a window as they are stored: bits packed."""
    found = {}
    for name, panel in panels.items():
        drawn = panel.draw(panel.prepare(window.recording), window)
        found[name] = np.packbits(drawn != 0, axis=-1) if drawn.dtype == bool else drawn
    return found
