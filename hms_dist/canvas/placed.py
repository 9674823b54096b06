"""A placement bound to its panel: checked when it is built, drawn batch by batch."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hms_dist.canvas.arrange import (
    decode,
    natural_order,
    resized,
    reversed_rows,
    stacked,
    take_regions,
    time_down,
    unpack_bits,
)
from hms_dist.canvas.options import Placement
from hms_dist.core.errors import UserError
from hms_dist.shards.schema import PanelSpec, mirrored


class PlacedPanel:
    """Draws one placement.

    Raises UserError if the shard set (its panel specifications, `specs`) cannot provide what the placement needs, flips
    included if `flips`.
    """

    def __init__(self, placement: Placement, specs: Mapping[str, PanelSpec], *, flips: bool) -> None:
        self.placement = placement
        self.spec = find_spec(placement.panel, "panel", specs)
        self.regions = placement.regions or self.spec.regions
        self._check_arrangement()
        self._check_values()
        if placement.resize == "exact":
            self._check_size()
        if flips:
            self._check_flip(specs)
        natural = placement.frequency_order == "natural_sort"
        self._frequencies = natural_order(self.spec.rows_hz) if natural else None
        self._made: dict[tuple[object, torch.device], Tensor] = {}

    def values(self, panels: Mapping[str, Tensor], flip: Tensor | None = None) -> Tensor:
        """Values of the shown regions in the panel's unit, float32 [m, ...], from the stored arrays."""
        return decode(self._stored(panels, flip), self.spec)

    def draw(self, panels: Mapping[str, Tensor], flip: Tensor | None, reverse: Tensor | None) -> Tensor:
        """Pixels of the placement [m, height, width] from the stored arrays, float32 or, of bits, uint8.

        `flip`, `reverse`: bool [m], or None for no row.
        """
        placement, values = self.placement, self._stored(panels, flip)
        if reverse is not None:  # while values are still small types
            values = reversed_rows(values, reverse)
        if self.spec.dtype != "bit" or placement.normalise is not None:
            values = decode(values, self.spec)
        if placement.normalise is not None:
            values = placement.normalise(values)
        if self._frequencies is not None:
            values = values.index_select(2, self._numbers(self._frequencies, values.device))
        if placement.time_crop is not None:
            values = values[..., slice(*placement.time_crop)]
        if placement.arrangement == "time_down":
            values = time_down(values)
        elif placement.arrangement == "stacked":
            values = stacked(values)
        values = resized(values, placement.height, placement.width, placement.resize)
        return values if placement.scale == 1 else values * placement.scale

    def _stored(self, panels: Mapping[str, Tensor], flip: Tensor | None) -> Tensor:
        """Stored arrays of the placement's regions, bits unpacked, flipped where `flip` is true."""
        stored = panels[self.placement.panel]
        if self.spec.dtype == "bit":
            stored = unpack_bits(stored)
        if self.placement.flipped_panel is not None:  # flipped rows already hold it
            flip = None
        if not self.regions:
            return stored
        plain, flipped = (
            self._numbers([self.spec.regions.index(region) for region in regions], stored.device)
            for regions in (self.regions, mirrored(self.regions) if flip is not None else self.regions)
        )
        return take_regions(stored, plain, flipped, flip)

    def _numbers(self, numbers: list[int], device: torch.device) -> Tensor:
        """Cached tensor of numbers on a device; creating it there synchronises with the GPU."""
        key = (tuple(numbers), device)
        if key not in self._made:
            self._made[key] = torch.tensor(numbers, device=device)
        return self._made[key]

    def _check_arrangement(self) -> None:
        name, placement, spec = self.placement.panel, self.placement, self.spec
        if placement.arrangement == "as_is":
            if len(spec.shape) != 2:
                raise UserError(f"canvas: '{name}' has axes {', '.join(spec.axes)}; arrangement as_is needs two axes")
            return
        if len(spec.shape) != 3 or spec.axes[-1] != "time" or not spec.regions:
            raise UserError(
                f"canvas: '{name}' has axes {', '.join(spec.axes)}; arrangement {placement.arrangement} "
                "needs regions or channels, rows, time"
            )
        for region in self.regions:
            if region not in spec.regions:
                raise UserError(f"canvas: '{name}' has no region '{region}'; one of: {', '.join(spec.regions)}")
        if placement.time_crop is not None and placement.time_crop[1] > spec.shape[2]:
            raise UserError(
                f"canvas: time_crop of '{name}' ends at {placement.time_crop[1]}; it has {spec.shape[2]} columns"
            )
        if placement.frequency_order == "natural_sort" and not spec.rows_hz:
            raise UserError(f"canvas: '{name}' states no frequencies; frequency_order must be rising")

    def _check_size(self) -> None:
        placement, shape = self.placement, self.spec.shape
        rows, columns = shape[-2], shape[-1]
        if placement.arrangement != "as_is":
            first, end = placement.time_crop or (0, columns)
            rows, columns = len(self.regions) * rows, end - first
            if placement.arrangement == "time_down":
                rows, columns = columns, rows
        if (rows, columns) != (placement.height, placement.width):
            raise UserError(
                f"canvas: '{placement.panel}' of this shard set is {rows} x {columns}, the canvas is made for "
                f"{placement.height} x {placement.width}; render with the recipe that the canvas names"
            )

    def _check_values(self) -> None:
        name, normalise = self.placement.panel, self.placement.normalise
        if normalise is None:
            if self.spec.dtype in ("float16", "float32"):
                holds = "holds gaps (NaN)" if self.spec.dtype == "float16" else f"is in {self.spec.unit}"
                raise UserError(f"canvas: '{name}' {holds}; its placement needs a normalise")
        elif normalise.unit not in (None, self.spec.unit):
            raise UserError(
                f"canvas: {type(normalise).__name__} needs a panel in {normalise.unit}, "
                f"'{name}' is in {self.spec.unit}; choose another normalise"
            )

    def _check_flip(self, specs: Mapping[str, PanelSpec]) -> None:
        name, flipped = self.placement.panel, self.placement.flipped_panel
        if flipped is None:
            if not self.regions or not set(mirrored(self.regions)) <= set(self.spec.regions):
                raise UserError(
                    f"canvas: '{name}' cannot be flipped by its regions; name a flipped_panel, or train without flips"
                )
        else:
            found = find_spec(flipped, "flipped_panel", specs)
            if replace(found, traces=mirrored(found.traces)) != self.spec:
                raise UserError(
                    f"canvas: flipped_panel '{flipped}' is not the mirror image of '{name}': they differ in shape, "
                    "dtype or meaning, or show the same side; name the panel rendered with flipped: true"
                )


def find_spec(name: str, option: str, specs: Mapping[str, PanelSpec]) -> PanelSpec:
    """Return the specification of panel `name`, which `option` names. Raises UserError if the set has no such
    panel."""
    if name not in specs:
        raise UserError(
            f"canvas: {option} '{name}' is not in the shard set, which has: {', '.join(specs)}; "
            "render it, or change the canvas"
        )
    return specs[name]
