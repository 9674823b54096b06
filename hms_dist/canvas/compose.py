"""The canvas: stored panels of a batch of rows -> the pictures a model sees, on the device they are on.

Deterministic, row by row: a row's picture depends neither on the batch it is in nor (to 1e-5) on the device.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hms_dist.canvas.options import CanvasConfig
from hms_dist.canvas.placed import PlacedPanel
from hms_dist.core.errors import UserError
from hms_dist.shards.schema import PanelSpec

__all__ = ["Canvas", "CanvasConfig"]


class Canvas:
    """Composes pictures as `config` says, from the panels of a shard set, `specs` by name.

    `flips`: whether rows will be flipped (left and right exchanged); without, panels that serve only flips
    are not read. Raises UserError when the shard set lacks what the canvas needs.
    """

    def __init__(self, config: CanvasConfig, specs: Mapping[str, PanelSpec], *, flips: bool = True) -> None:
        self.config = config
        self.flips = flips
        self.placed = tuple(PlacedPanel(placement, specs, flips=flips) for placement in config.placements)
        """Each placement bound to its panel, in the configuration's order."""
        self.panels: tuple[str, ...] = tuple(dict.fromkeys(item.panel for item in config.placements))
        """Names of the panels to draw from, each once."""
        self.swaps: dict[str, str] = _swaps(config) if flips else {}
        """Panel -> the panel that is to be given under its name for flipped rows."""
        self.members: tuple[str, ...] = tuple(dict.fromkeys([*self.panels, *self.swaps.values()]))
        """Names of all members of a shard set that are read."""
        areas = [item.height * item.width for item in config.placements]  # of rectangles that do not overlap
        self._is_covered = sum(areas) == config.height * config.width

    @torch.no_grad()
    def __call__(
        self, panels: Mapping[str, Tensor], flip: Tensor | None = None, reverse: Tensor | None = None
    ) -> Tensor:
        """Pictures, float32 [m, 1, height, width], all finite.

        `panels`: for each name in `.panels` the stored arrays [m, *stored_shape], bits still packed; in flipped rows
        those of the panel that `.swaps` names.
        `flip`: bool [m], true for rows to be flipped (left and right exchanged: exactly the picture of the flipped
        recording). `reverse`: bool [m], true for rows whose time runs backwards in every panel (exactly the picture
        of the reversed recording for its 10-minute spectrogram, and nearly so for panels with frames or filters).
        None: no row. Raises ValueError for a `flip` on a canvas made without flips, and for data-wide statistics
        that are not known.
        """
        if flip is not None and not self.flips:
            raise ValueError("flip: this canvas was made with flips=False")
        first = panels[self.panels[0]]
        blank = torch.empty if self._is_covered else torch.zeros
        pictures = blank(len(first), 1, self.config.height, self.config.width, device=first.device)
        for placed in self.placed:
            place = placed.placement
            pictures[:, 0, place.top : place.bottom, place.left : place.right] = placed.draw(panels, flip, reverse)
        return pictures


def _swaps(config: CanvasConfig) -> dict[str, str]:
    """Panel -> flipped panel. Raises UserError if placements of one panel disagree about it."""
    flipped = {item.panel: item.flipped_panel for item in reversed(config.placements)}
    for item in config.placements:
        if item.flipped_panel != flipped[item.panel]:
            raise UserError(
                f"canvas: placements of '{item.panel}' name different flipped_panels ({flipped[item.panel]} and "
                f"{item.flipped_panel}); name the same in all"
            )
    return {panel: other for panel, other in flipped.items() if other is not None}
