"""The recipes all_panels and audio name every kind of panel that there is, of EEG and of audio."""

import pytest

from hms_dist.config.load import load
from hms_dist.panels.panel import AudioPanel, Panel
from hms_dist.rendering.render import RenderConfig


@pytest.mark.parametrize(("recipe", "base"), [("all_panels", Panel), ("audio", AudioPanel)])
def test_every_kind_is_named(repository, recipe, base) -> None:
    panels = load(RenderConfig, ["--config", str(repository / f"configs/render/{recipe}.yaml")]).panels
    ours = {kind for kind in base.__subclasses__() if kind.__module__.startswith("hms_dist.")}  # not a test's plug-in
    assert {type(panel) for panel in panels.values()} == ours - {AudioPanel}
