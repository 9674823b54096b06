"""Every canvas that cannot be drawn is refused in one line that names what to change."""

from dataclasses import replace

import pytest

from hms_dist.canvas.compose import Canvas, CanvasConfig
from hms_dist.canvas.normalise import QuantileLog10, Standardise
from hms_dist.canvas.options import Placement
from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.shards.schema import PanelSpec


def one(placement: Placement, height: int = 64, width: int = 64) -> CanvasConfig:
    return CanvasConfig(height=height, width=width, placements=(placement,))


PLACE = {"top": 0, "left": 0, "height": 64, "width": 64}
REGIONS = PanelSpec(
    shape=(4, 16, 32),
    dtype="uint8",
    codec="npy",
    axes=("region", "frequency", "time"),
    unit="dB",
    regions=("LL", "RL", "LP", "RP"),
    value_range=(-80.0, 0.0),
    rows_hz=tuple(range(1, 17)),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"panel": "b"}, "canvas: panel 'b' is not in the shard set, which has: a, bits, logs"),
        ({"regions": ("LL", "XX")}, "canvas: 'a' has no region 'XX'; one of: LL, RL, LP, RP"),
        ({"regions": ("LL",), "time_crop": (0, 33)}, "canvas: time_crop of 'a' ends at 33; it has 32 columns"),
        ({"arrangement": "as_is"}, "canvas: 'a' has axes region, frequency, time; arrangement as_is needs two"),
        (
            {"panel": "bits"},
            "canvas: 'bits' has axes row, column; arrangement stacked needs regions or channels, rows, ",
        ),
        ({"normalise": Standardise()}, r"canvas: Standardise needs a panel in ln\(power\), 'a' is in dB"),
        ({"normalise": QuantileLog10()}, "canvas: QuantileLog10 needs a panel in"),
        ({"panel": "logs"}, "canvas: 'logs' holds gaps"),
        (
            {"panel": "logs", "normalise": Standardise(), "frequency_order": "natural_sort"},
            "canvas: 'logs' states no frequencies",
        ),
        ({"panel": "bits", "arrangement": "as_is"}, "canvas: 'bits' cannot be flipped by its regions; name a flipped_"),
        ({"flipped_panel": "c"}, "canvas: flipped_panel 'c' is not in the shard set"),
        ({"flipped_panel": "logs"}, "canvas: flipped_panel 'logs' is not the mirror image of 'a'"),
    ],
)
def test_what_the_shard_set_cannot_give(change: dict, message: str) -> None:
    logs = replace(REGIONS, dtype="float16", value_range=None, unit="ln(power)", rows_hz=())
    bits = PanelSpec(shape=(16, 32), dtype="bit", codec="npy", axes=("row", "column"), unit="ink")
    placement = replace(Placement(panel="a", arrangement="stacked", **PLACE), **change)
    with pytest.raises(UserError, match=message) as caught:
        Canvas(one(placement), {"a": REGIONS, "bits": bits, "logs": logs})
    assert "\n" not in str(caught.value)


def test_the_flipped_panel_must_show_the_other_side() -> None:
    left = PanelSpec(
        shape=(16, 32), dtype="bit", codec="npy", axes=("row", "time"), unit="lit", traces=("Fp1-F3", "EKG")
    )
    specs = {"left": left, "right": replace(left, traces=("Fp2-F4", "EKG"))}
    Canvas(one(Placement(panel="left", flipped_panel="right", **PLACE)), specs)
    with pytest.raises(UserError, match="show the same side; name the panel rendered with flipped: true"):
        Canvas(one(Placement(panel="left", flipped_panel="left", **PLACE)), specs)


def test_channels_flip_by_their_electrodes() -> None:
    channels = replace(REGIONS, axes=("channel", "statistic", "time"), regions=("C3", "Fz-F4", "C4", "Fz-Cz"))
    placement = Placement(panel="a", arrangement="stacked", **PLACE)
    with pytest.raises(UserError, match="'a' cannot be flipped by its regions"):
        Canvas(one(placement), {"a": channels})
    Canvas(one(placement), {"a": channels}, flips=False)
    Canvas(one(replace(placement, regions=("C4", "Fz-Cz"))), {"a": channels})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": -1}, "top: 'a' must start at 0"),
        ({"left": -1}, "left: 'a' must start at 0"),
        ({"height": 0}, "height: 'a' must be at least 1"),
        ({"width": 0}, "width: 'a' must be at least 1"),
        ({"top": 1}, r"placements: top \+ height of 0 \('a'\) is 65, beyond the canvas of 64"),
        ({"width": 70}, r"placements: left \+ width of 0 \('a'\) is 70, beyond the canvas of 64"),
        ({"time_crop": [9, 9]}, r"time_crop: must be \[first, end\]"),
        ({"arrangement": "as_is", "regions": ["LL"]}, "arrangement: 'a' as_is has no regions"),
        ({"arrangement": "sideways"}, "arrangement"),
        (
            {"normalise": {"class_path": "Median"}},
            "unknown normaliser 'Median'; one of: Affine, DataWide, ",
        ),
        ({"colour": "red"}, "unknown option 'colour'; one of: panel"),
    ],
)
def test_refused_configurations_name_the_option(change: dict, message: str) -> None:
    placement = {"panel": "a", "arrangement": "stacked"} | PLACE | change
    with pytest.raises(UserError, match=message):
        from_dict(CanvasConfig, {"height": 64, "width": 64, "placements": [placement]})


def test_overlaps_are_refused_and_neighbours_are_not() -> None:
    places = [{"panel": "a", "arrangement": "stacked"} | PLACE, {"panel": "b"} | PLACE | {"left": 63}]
    with pytest.raises(UserError, match=r"placements: 0 \('a'\) and 1 \('b'\) overlap; change top, left"):
        from_dict(CanvasConfig, {"height": 64, "width": 128, "placements": places})
    places[1]["left"] = 64
    assert len(from_dict(CanvasConfig, {"height": 64, "width": 128, "placements": places}).placements) == 2
    for size in ({"placements": []}, {"placements": places, "height": 0}):
        with pytest.raises(UserError, match="a canvas needs at least"):
            from_dict(CanvasConfig, {"height": 64, "width": 128} | size)
    for size in ({"width": 2**31}, {"height": 4097, "width": 4096}):
        with pytest.raises(UserError, match="a canvas has at most 16777216 pixels, found "):
            from_dict(CanvasConfig, {"height": 64, "width": 128, "placements": places} | size)


def test_placements_of_one_panel_agree_about_its_flip() -> None:
    half = {"panel": "a", "arrangement": "stacked", "left": 0, "height": 32, "width": 64}
    placements = (Placement(**half, top=0, flipped_panel="b"), Placement(**half, top=32))
    config = CanvasConfig(height=64, width=64, placements=placements)
    specs = {"a": REGIONS, "b": REGIONS}
    assert Canvas(config, specs, flips=False).swaps == {}
    with pytest.raises(UserError, match=r"placements of 'a' name different flipped_panels \(b and None\)"):
        Canvas(config, specs)
