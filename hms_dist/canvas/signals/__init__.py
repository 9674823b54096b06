"""Stored signals, and the pictures that a canvas draws from them on the device."""

from hms_dist.canvas.signals.drawn import DrawnPanel, signal_values
from hms_dist.canvas.signals.mel import DrawnLogMel, DrawnPcen

__all__ = ["DrawnLogMel", "DrawnPanel", "DrawnPcen", "signal_values"]
