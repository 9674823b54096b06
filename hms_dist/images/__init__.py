"""Panels: one file a kind of picture, each a frozen dataclass behind `images.panel.Panel`."""
