"""Panels of one window of a recording that is not in a shard set, as pictures."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.window import read_window
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.panels.panel import Panel, Window
from hms_dist.report.picture import Picture, panel_picture

_TIME = re.compile(r"([0-9]{1,4}:)?([0-9]{1,4}:)?[0-9]{1,8}(\.[0-9]{1,6})?")


def parse_time(text: str) -> float:
    """Parse seconds, MM:SS or HH:MM:SS. Raises ValueError for anything else."""
    if not _TIME.fullmatch(text):
        raise ValueError(f"at: expected seconds or HH:MM:SS, found '{text[:40]}'")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def recording_pictures(path: Path, at_s: float, options: ReadingOptions) -> dict[str, Picture]:
    """Draw the default panels of the window around `at_s`. Raises UserError as `read_window`."""
    recording, start = read_window(path, at_s, options)
    window = Window(recording=recording, start=start, spectrogram_offset_s=0.0)
    return window_pictures({name: DEFAULT_PANELS[name] for name in DEFAULT_PANELS if name != "traces_flipped"}, window)


def window_pictures(panels: Mapping[str, Panel], window: Window) -> dict[str, Picture]:
    """Draw panels of a window, each under its name."""
    pictures = {}
    for name, panel in panels.items():
        drawn = panel.draw(panel.prepare(window.recording), window)
        stored = np.packbits(drawn != 0, axis=-1) if drawn.dtype == bool else drawn
        pictures[name] = panel_picture(panel.spec, stored)
    return pictures
