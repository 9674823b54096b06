"""The canvas: stored panels of a batch of rows -> the pictures a model sees, on the device they are on.

Deterministic, row by row: a row's picture depends neither on the batch it is in nor (to 1e-5) on the device.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hms_dist.canvas.config import CanvasConfig
from hms_dist.canvas.placed import PlacedPanel
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
        flipped = [item.flipped_panel for item in config.placements if flips and item.flipped_panel]
        names = [item.panel for item in config.placements] + flipped
        self.panels: tuple[str, ...] = tuple(dict.fromkeys(names))
        """Names of the members to read, each once."""

    @torch.no_grad()
    def __call__(
        self, panels: Mapping[str, Tensor], flip: Tensor | None = None, reverse: Tensor | None = None
    ) -> Tensor:
        """Pictures, float32 [m, 1, height, width], all finite.

        `panels`: for each name in `.panels` the stored arrays [m, *stored_shape], bits still packed.
        `flip`: bool [m], true for rows to be flipped (left and right exchanged: exactly the picture of the flipped
        recording). `reverse`: bool [m], true for rows whose time runs backwards in every panel (exactly the picture
        of the reversed recording for its 10-minute spectrogram, and nearly so for panels with frames or filters).
        None: no row. Raises ValueError for a `flip` on a canvas made without flips, and for data-wide statistics
        that are not known.
        """
        if flip is not None and not self.flips:
            raise ValueError("flip: this canvas was made with flips=False")
        first = panels[self.panels[0]]
        pictures = torch.zeros(len(first), 1, self.config.height, self.config.width, device=first.device)
        for placed in self.placed:
            place = placed.placement
            pictures[:, 0, place.top : place.bottom, place.left : place.right] = placed.draw(panels, flip, reverse)
        return pictures
