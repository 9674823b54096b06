"""The canvas: compose the model's input images from the stored panels of a batch of rows, on the panels' device.

A panel is read as it was rendered or, if the configuration names it in `drawn`, drawn from a stored signal.

Composition is deterministic: the image of a row does not depend on the other rows of the batch nor (to 1e-5) on the
device.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hms_dist.canvas.options import CanvasConfig
from hms_dist.canvas.placed import PlacedPanel, find_spec
from hms_dist.canvas.signals import signal_values
from hms_dist.core.errors import UserError
from hms_dist.shards.schema import PanelSpec

__all__ = ["Canvas", "CanvasConfig"]


class Canvas:
    """Composes images according to `config` from the panels of a shard set; `specs`: their specifications by name.

    `flips`: whether rows may be flipped (left and right exchanged); otherwise panels that only flips need are not read.
    Raises UserError if the shard set lacks a panel that the canvas needs.
    """

    def __init__(self, config: CanvasConfig, specs: Mapping[str, PanelSpec], *, flips: bool = True) -> None:
        self.config = config
        self.flips = flips
        self.signals = {one.drawn_from: find_spec(one.drawn_from, "drawn_from", specs) for one in config.drawn.values()}
        """Stored signals that panels are drawn from, by name."""
        drawn = {name: one.spec(self.signals[one.drawn_from]) for name, one in config.drawn.items()}
        self.placed = tuple(PlacedPanel(item, {**specs, **drawn}, flips=flips) for item in config.placements)
        """Placements bound to their panels, in the order of the configuration."""
        read = [
            config.drawn[item.panel].drawn_from if item.panel in drawn else item.panel for item in config.placements
        ]
        self.panels: tuple[str, ...] = tuple(dict.fromkeys(read))
        """Names of the stored panels and signals that the placements show or are drawn from, without duplicates."""
        self.swaps: dict[str, str] = _swaps(config) if flips else {}
        """Panel -> the panel to pass under its name for flipped rows."""
        self.members: tuple[str, ...] = tuple(dict.fromkeys([*self.panels, *self.swaps.values()]))
        """Names of all members of a shard set to read."""
        areas = [item.height * item.width for item in config.placements]  # of rectangles that do not overlap
        self._is_covered = sum(areas) == config.height * config.width

    @torch.no_grad()
    def __call__(
        self, panels: Mapping[str, Tensor], flip: Tensor | None = None, reverse: Tensor | None = None
    ) -> Tensor:
        """Compose images: float32 [m, 1, height, width], all finite.

        `panels`: for each name in `.panels` the stored arrays [m, *stored_shape], with packed bits; for flipped rows
        those of the panel in `.swaps`. Of a signal also its values in float32, augmented.
        `flip`: bool [m], rows to flip (left and right exchanged), exactly as if the recording were flipped. `reverse`:
        bool [m], rows to reverse in time, in every panel; exactly as if the recording were reversed for the 10-minute
        spectrogram, and approximately for panels with frames or filters. None: no row.
        Raises ValueError for `flip` on a canvas created with flips=False, and for data-wide statistics that are not
        computed yet.
        """
        if flip is not None and not self.flips:
            raise ValueError("flip: this canvas was created with flips=False")
        first = panels[self.panels[0]]
        panels = self.with_drawn(panels)
        blank = torch.empty if self._is_covered else torch.zeros
        pictures = blank(len(first), 1, self.config.height, self.config.width, device=first.device)
        for placed in self.placed:
            place = placed.placement
            pictures[:, 0, place.top : place.bottom, place.left : place.right] = placed.draw(panels, flip, reverse)
        return pictures

    def with_drawn(self, panels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Add the panels that are drawn from signals, float32, to the stored panels of a batch."""
        values = {name: signal_values(panels[name], spec) for name, spec in self.signals.items()}
        drawn = {
            name: one.draw(values[one.drawn_from], self.signals[one.drawn_from])
            for name, one in self.config.drawn.items()
        }
        return {**panels, **drawn}


def _swaps(config: CanvasConfig) -> dict[str, str]:
    """Return panel -> flipped panel. Raises UserError if placements of one panel name different ones."""
    flipped = {item.panel: item.flipped_panel for item in reversed(config.placements)}
    for item in config.placements:
        if item.flipped_panel != flipped[item.panel]:
            raise UserError(
                f"canvas: placements of '{item.panel}' name different flipped_panels ({flipped[item.panel]} and "
                f"{item.flipped_panel}); name the same in all"
            )
    return {panel: other for panel, other in flipped.items() if other is not None}
