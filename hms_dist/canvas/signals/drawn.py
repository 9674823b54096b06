"""The interface of panels that are drawn on the device from a stored signal, instead of being read."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hms_dist.core.errors import UserError
from hms_dist.shards.schema import PanelSpec


@dataclass(frozen=True, kw_only=True)
class DrawnPanel(ABC):
    """A panel drawn from a stored signal: a frozen dataclass of options, and a pure function of each row."""

    drawn_from: str
    """Name of the stored signal in the shard set, such as waveform."""

    @abstractmethod
    def spec(self, stored: PanelSpec) -> PanelSpec:
        """Return the specification of the drawn panel, dtype float32, from that of the signal.

        Raises UserError if it cannot be drawn from the signal.
        """

    @abstractmethod
    def draw(self, signal: Tensor, stored: PanelSpec) -> Tensor:
        """Draw rows: float32 [m, *spec.shape] from `signal_values` float32 [m, channels, samples], margins included.

        The result of a row does not depend on the other rows.
        """


def check_signal(stored: PanelSpec, name: str, rate_hz: float, num_samples: int) -> None:
    """Raise UserError unless a stored panel is a signal of this rate that holds a row of `num_samples`."""
    if stored.dtype != "int16" or stored.axes != ("channel", "time") or stored.columns_s is None:
        raise UserError(
            f"canvas: drawn_from: '{name}' is no stored signal (axes {', '.join(stored.axes)}, {stored.dtype}); name a "
            "panel of samples, such as a Waveform"
        )
    found_hz = sample_rate_hz(stored)
    if abs(found_hz - rate_hz) > 1e-6 * rate_hz:
        raise UserError(
            f"canvas: drawn_from: '{name}' has {found_hz:g} samples per second, the picture is drawn from {rate_hz:g}; "
            "set its rate_hz"
        )
    found = stored.shape[-1] - 2 * margin_of(stored)
    if found != num_samples:
        raise UserError(
            f"canvas: drawn_from: '{name}' has {found} samples per row, the picture is drawn from {num_samples}; set "
            "its window_s"
        )


def sample_rate_hz(stored: PanelSpec) -> float:
    """Samples per second of a stored signal."""
    assert stored.columns_s is not None
    first_s, last_s = stored.columns_s
    return (stored.shape[-1] - 1) / (last_s - first_s)


def margin_of(stored: PanelSpec) -> int:
    """Samples on each side of the row of a stored signal."""
    assert stored.columns_s is not None
    return round(-stored.columns_s[0] * sample_rate_hz(stored))


def signal_values(stored: Tensor, spec: PanelSpec) -> Tensor:
    """Convert a stored signal, int16 [m, channels, samples], to values in its unit, float32; values are returned
    unchanged."""
    if stored.dtype == torch.float32:
        return stored
    assert spec.value_range is not None
    return stored.float() * (spec.value_range[1] / 32768)
