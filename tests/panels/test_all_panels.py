"""configs/render/all_panels.yaml names every kind of panel that there is."""

from hms_dist.config.load import load
from hms_dist.panels.panel import Panel
from hms_dist.rendering.render import RenderConfig


def test_every_kind_is_named(repository) -> None:
    panels = load(RenderConfig, ["--config", str(repository / "configs/render/all_panels.yaml")]).panels
    assert {type(panel) for panel in panels.values()} == set(Panel.__subclasses__())
