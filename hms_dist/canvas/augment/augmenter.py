"""Apply lists of augmentations, in order, to the rows of a pass: to signals before images are drawn, and to images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Augmentation, Mix, Part, SingleAugmentation
from hms_dist.canvas.augment.draws import Floats, RowDraws, draws_of
from hms_dist.canvas.augment.groups import GroupedRows, Ints, closure
from hms_dist.canvas.augment.layout import layout_of
from hms_dist.canvas.augment.row_facts import RowFacts, RowKind
from hms_dist.canvas.augment.signal_mixes import SignalMix
from hms_dist.canvas.augment.signal_steps import SignalChange, SignalLayout, signal_layout
from hms_dist.canvas.augment.tables import Planned, apply_tables, on_device
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.canvas.signals import signal_values
from hms_dist.core.errors import UserError

_PARTNER = 1
"""Key of the draws that choose the partner in a mix."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentations of training rows; evaluation uses none. Flips are an option of the run."""

    RECIPE_FOLDER = "augment"

    reverse_probability: float = 0.0
    """Share of rows that are reversed in time, in every panel."""
    steps: tuple[Augmentation, ...] = ()
    """Augmentations, applied to the composed image in this order; each by class_path and init_args."""
    signal_steps: tuple[Augmentation, ...] = ()
    """Augmentations of the stored signal in time, applied in this order before images are drawn from it: SignalShift,
    SignalReverse, SignalPaste, SignalPasteOther, SignalMixUp, MixUp, OneOf. Needs a canvas whose panels are all `drawn`
    from one signal."""

    def __post_init__(self) -> None:
        if not 0 <= self.reverse_probability <= 1:
            raise ValueError(f"reverse_probability: expected 0 to 1, found {self.reverse_probability}")
        for option, kind in (("steps", "images"), ("signal_steps", "signals")):
            for step in getattr(self, option):
                if not step.can_change(kind):
                    raise ValueError(f"{option}: {step.name} cannot change {kind}; choose another, or the other list")

    def check(self, canvas: CanvasConfig) -> None:
        """Raise ValueError if a step does not fit a canvas."""
        for step in self.steps:
            fault = step.fault(canvas.height, canvas.width)
            if fault is not None:
                raise ValueError(
                    f"augment: {step.name} does not fit the canvas of {canvas.height} x {canvas.width} pixels: {fault}"
                )
        signals = {one.drawn_from for one in canvas.drawn.values()}
        stored = [item.panel for item in canvas.placements if item.panel not in canvas.drawn]
        if self.signal_steps and (stored or len(signals) > 1):
            found = f"'{stored[0]}' is stored" if stored else f"signals {', '.join(sorted(signals))}"
            raise ValueError(
                f"augment.signal_steps: expected a canvas whose panels are all drawn from one signal, {found}; choose "
                "such a canvas, or leave signal_steps out"
            )

    @property
    def mixes(self) -> bool:
        """Whether any step mixes rows with other rows of their group."""
        return any(step.mixes for step in (*self.steps, *self.signal_steps))

    @property
    def moves_window(self) -> bool:
        """Whether any option mixes composed images, or moves content along the time axis, away from the annotated
        part."""
        if any(step.mixes for step in self.steps):
            return True
        return self.reverse_probability > 0 or any(step.moves_time for step in (*self.steps, *self.signal_steps))


class Augmenter:
    """Applies the steps of a configuration to images of `canvas`, and to the signal that they are drawn from.

    `facts`: of the rows of the shard set; None: all rows are positive, and the targets are shares. Signals need them.
    Raises UserError for a step that does not fit the signal.
    """

    def __init__(self, config: AugmentConfig, canvas: Canvas, facts: RowFacts | None = None) -> None:
        self._config, self._facts = config, facts
        self.steps = config.steps
        """Augmentations of images."""
        self.layout = layout_of(canvas)
        self.yes_no = facts is not None and facts.yes_no
        """Whether targets are independent classes instead of shares."""
        self._signals = canvas.signals if config.signal_steps else {}
        for name, spec in self._signals.items():
            faults = [(step.name, step.signal_fault(spec)) for step in config.signal_steps]
            for step, fault in faults:
                if fault is not None:
                    raise UserError(f"augment.signal_steps: {step} does not fit '{name}': {fault}")

    @torch.no_grad()
    def __call__(
        self, images: Tensor, targets: Tensor, rows: GroupedRows, *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Augment images, float32 [n, 1, height, width], and targets, float32 or float64 [n, classes], of the rows of a
        pass; the inputs are not changed.

        Draws are computed on the host, keyed by row, and copied to the device at once. The result of a rank's own row
        depends on that row alone or, with mixes, on its group; the batch must contain the rows that it is mixed with
        (`partner_places`).
        """
        planned = self.plan(rows, seed=seed, epoch=epoch)
        return self._apply([one for one in planned if one is not None], images, targets)

    def plan(self, rows: GroupedRows, *, seed: int, epoch: int) -> list[Planned | None]:
        """Plan each single augmentation of images, in order; None: it changes no row of the pass."""
        drawn = self._chosen(self.steps, draws_of(rows.rows, seed=seed, epoch=epoch), rows)
        return [
            Planned(step, self.layout, _table(step, draws, chosen, rows, self.layout)) if chosen.any() else None
            for step, chosen, draws in drawn
        ]

    @torch.no_grad()
    def signals(
        self, panels: Mapping[str, Tensor], targets: Tensor, rows: GroupedRows, *, seed: int, epoch: int
    ) -> tuple[Mapping[str, Tensor], Tensor]:
        """Augment the stored signal among `panels`, and targets [n, classes], as images are, before them.

        The signal, int16 [n, channels, samples], is replaced by its values in float32.
        """
        for name, spec in self._signals.items():
            assert self._facts is not None
            draws = draws_of(rows.rows, seed=seed, epoch=epoch, signals=True)
            layout, planned = signal_layout(spec, self._facts.annotated_s[rows.rows]), []
            for step, chosen, drawn in self._chosen(self._config.signal_steps, draws, rows):
                if not chosen.any():
                    continue
                own, changed = _of_rows(layout, step, drawn, chosen, rows)
                table = _table(step, drawn, changed, rows, own)
                planned.append(Planned(step, own, table))
                layout = _moved(layout, step, own, changed, table)
            values, targets = self._apply(planned, signal_values(panels[name], spec), targets)
            panels = {**panels, name: values}
        return panels, targets

    def _apply(self, planned: Sequence[Planned], content: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Apply planned steps to images or signals."""
        if not planned:
            return content, targets
        content, targets = content.clone(), targets.clone()
        tables = on_device([one.table for one in planned], content.device)
        apply_tables(planned, tables, content, targets, yes_no=self.yes_no)
        return content, targets

    def _chosen(self, steps: Sequence[Augmentation], draws: RowDraws, rows: GroupedRows) -> Iterator[Part]:
        """Draw the rows that each step changes."""
        for step, chosen, drawn in _parts(steps, draws, self._facts):
            applied = chosen
            if isinstance(step, Mix):  # rows whose partner is not in the batch are not needed
                applied = chosen & (rows.positions(_partners(rows, drawn)) >= 0) & (rows.group_size > 1)
            yield step, applied, drawn


def _table(
    step: SingleAugmentation, draws: RowDraws, chosen: NDArray[np.bool_], rows: GroupedRows, layout: Any
) -> Floats:
    columns = [np.flatnonzero(chosen)]
    if isinstance(step, Mix):
        columns.append(rows.positions(_partners(rows, draws)[chosen]))
    numbers = np.stack(columns, axis=1).astype(np.float64)
    return np.concatenate([numbers, step.draw(draws.only(chosen), layout)], axis=1)


def _of_rows(
    layout: SignalLayout, step: SingleAugmentation, draws: RowDraws, chosen: NDArray[np.bool_], rows: GroupedRows
) -> tuple[SignalLayout, NDArray[np.bool_]]:
    """Return the layout of the `chosen` rows, and of those without room for a mix none; and which rows [n] it is of."""
    own = replace(layout, annotated=layout.annotated[chosen])
    if not isinstance(step, SignalMix):
        return own, chosen
    donated = layout.annotated[rows.positions(_partners(rows, draws)[chosen])]
    room = step.has_room(replace(own, donated=donated))
    changed = chosen.copy()
    changed[chosen] = room
    return replace(own, annotated=own.annotated[room], donated=donated[room]), changed


def _moved(
    layout: SignalLayout, step: SingleAugmentation, own: SignalLayout, chosen: NDArray[np.bool_], table: Floats
) -> SignalLayout:
    """Return the layout of all rows after a step with the layout `own` of its rows."""
    if not isinstance(step, SignalChange):
        return layout
    annotated = layout.annotated.copy()
    annotated[chosen] = step.moved(own.annotated, table[:, 1:])
    return replace(layout, annotated=annotated)


def partner_places(
    config: AugmentConfig, groups: GroupedRows, own: Ints, *, seed: int, epoch: int, facts: RowFacts | None = None
) -> Ints:
    """Return the places [n] of rows with which the rows at places `own` [m] are mixed, directly or indirectly, in
    ascending order.

    `groups`: all rows of the groups of `own`, with their places in ascending order.
    """
    size = int(groups.places.max()) + 1
    mixes = []
    for steps, signals in ((config.signal_steps, True), (config.steps, False)):
        draws = draws_of(groups.rows, seed=seed, epoch=epoch, signals=signals)
        for step, chosen, drawn in _parts(steps, draws, facts):
            if isinstance(step, Mix) and groups.group_size > 1:
                is_mixed, partner = np.zeros(size, bool), np.zeros(size, np.int64)
                is_mixed[groups.places], partner[groups.places] = chosen, _partners(groups, drawn)
                mixes.append((is_mixed, partner))
    return closure(own, mixes)


def _parts(steps: Sequence[Augmentation], draws: RowDraws, facts: RowFacts | None) -> list[Part]:
    """Every single augmentation of `steps` with the rows that it changes and their draws."""
    found = []
    for place, step in enumerate(steps):
        for part, chosen, drawn in step.parts(draws.within(place)):
            allowed = _allowed(facts, step.rows, draws.rows) & _allowed(facts, part.rows, draws.rows)
            found.append((part, chosen & allowed, drawn))
    return found


def _allowed(facts: RowFacts | None, kind: RowKind, rows: Ints) -> NDArray[np.bool_]:
    return np.full(len(rows), kind != "negative") if facts is None else facts.allows(kind, rows)


def _partners(rows: GroupedRows, draws: RowDraws) -> Ints:
    """Place of each row's partner in a mix."""
    return rows.others(draws.within(_PARTNER).uniform(1)[:, 0])
