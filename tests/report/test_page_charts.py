"""Charts of the page: well-formed, true to scale, inside their frame, and with words for those who do not see them."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.report.page_charts import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    Curve,
    Level,
    Spot,
    interval_chart,
    legend,
    line_chart,
    reliability_chart,
    stacked_bars,
    style_of,
)
from hms_dist.results.held_out import Reliability


def numbers(text: str) -> np.ndarray:
    return np.array(re.findall(r"-?[\d.]+", text), float).reshape(-1, 2)


def curve(name: str, y: np.ndarray, number: int = 0) -> Curve:
    return Curve(name, number, np.arange(1.0, len(y) + 1), y)


def paths(chart: str, name: str) -> list[ET.Element]:
    return [item for item in ET.fromstring(chart).iter("path") if item.get("class") == name]


def ticks(chart: str, anchor: str) -> dict[float, float]:
    """Value -> place of the numbers at an axis."""
    axis = "x" if anchor == "middle" else "y"
    found = [item for item in ET.fromstring(chart).iter("text") if item.get("text-anchor") == anchor]
    return {float(item.text): float(item.get(axis)) for item in found if re.fullmatch(r"-?[\d.e-]+", item.text)}


@pytest.mark.parametrize("top", [0.00031, 0.9, 1.0, 7.3, 480, 12345])
def test_a_curve_is_true_to_scale(top: float, rng: np.random.Generator) -> None:
    y = rng.uniform(0, top, 20)
    y[3] = top
    chart = line_chart("Loss of a", "step", "loss", [curve("a", y)])
    points = numbers(paths(chart, "curve")[0].get("d"))
    across, up = ticks(chart, "middle"), ticks(chart, "end")
    x_fit = np.polyfit(list(across), list(across.values()), 1)
    y_fit = np.polyfit(list(up), [place - 4 for place in up.values()], 1)
    np.testing.assert_allclose(points[:, 0], np.polyval(x_fit, np.arange(1, 21)), atol=0.3)
    np.testing.assert_allclose(points[:, 1], np.polyval(y_fit, y), atol=0.3)
    assert min(up) == 0
    assert top <= max(up) <= 2.6 * top
    assert 3 <= len(up) <= 6
    assert (points > 0).all()
    assert (points < [WIDTH, HEIGHT]).all()


def test_a_long_curve_is_averaged(rng: np.random.Generator) -> None:
    y = rng.uniform(1, 2, 10 * MAX_POINTS)
    chart = line_chart("x", "step", "loss", [curve("a", y)])
    means = line_chart(
        "x", "step", "loss", [Curve("a", 0, *(v.reshape(-1, 10).mean(1) for v in (np.arange(1.0, len(y) + 1), y)))]
    )
    drawn, expected = (numbers(paths(item, "curve")[0].get("d")) for item in (chart, means))
    assert len(drawn) == MAX_POINTS
    assert np.corrcoef(drawn[:, 1], expected[:, 1])[0, 1] > 0.999


def test_nothing_but_zeros_is_a_flat_line() -> None:
    points = numbers(paths(line_chart("x", "step", "wait", [curve("a", np.zeros(3))]), "curve")[0].get("d"))
    assert len(np.unique(points[:, 1])) == 1


def test_many_curves_look_different() -> None:
    assert len({style_of(number) for number in range(32)}) == 32
    assert legend(["<a>", "b"]).count("<li>") == 2
    assert "&lt;a&gt;" in legend(["<a>", "b"])


def test_dots_of_reliability() -> None:
    predicted, observed, counts = np.array([0.1, 0.5]), np.array([0.2, 0.5]), np.array([100.0, 4.0])
    chart = reliability_chart("Reliability of a", [("a", 0, Reliability(predicted, observed, counts))])
    root = ET.fromstring(chart)
    start, end = numbers(paths(chart, "ideal")[0].get("d"))
    first, second = ((float(dot.get("cx")), float(dot.get("cy")), float(dot.get("r"))) for dot in root.iter("circle"))
    np.testing.assert_allclose(second[:2], (start + end) / 2, atol=0.1)
    np.testing.assert_allclose(first[:2], start + (end - start) * [0.1, 0.2], atol=0.1)
    assert first[2] > second[2]
    assert root.get("aria-label") == "Reliability of a"
    assert root.get("role") == "img"


def test_lines_to_compare_with() -> None:
    levels = [Level("constant", 1.5), Level("oracle", 0.3)]
    chart = line_chart("KL", "step", "KL", [curve("a", np.array([1.0, 0.5]))], levels)
    up = ticks(chart, "end")
    fit = np.polyfit(list(up), [place - 4 for place in up.values()], 1)
    places = [float(re.match(r"M[\d.]+ ([\d.]+)H", path.get("d"))[1]) for path in paths(chart, "ideal")]
    np.testing.assert_allclose(places, np.polyval(fit, [1.5, 0.3]), atol=0.3)
    assert max(up) >= 1.5  # the axis reaches the highest line
    assert [f"{level.name} {level.value:.4f}" in chart for level in levels] == [True, True]


def test_intervals_are_true_to_scale() -> None:
    spots = [Spot("a<", 0.8, (0.6, 1.0), [Level("constant", 1.2), Level("oracle", 0.3)]), Spot("b", 0.5, None, [])]
    chart = interval_chart("KL with intervals", "KL", spots)
    root, at = ET.fromstring(chart), ticks(chart, "middle")
    fit = np.polyfit(list(at), list(at.values()), 1)
    circles = [float(dot.get("cx")) for dot in root.iter("circle")]
    np.testing.assert_allclose(circles, np.polyval(fit, [0.8, 0.5]), atol=0.2)
    ends = [re.match(r"M([\d.]+) [\d.]+H([\d.]+)", path.get("d")).groups() for path in paths(chart, "curve")]
    np.testing.assert_allclose(np.array(ends, float), np.polyval(fit, [[0.6, 1.0], [0.5, 0.5]]), atol=0.2)
    for name, value in (("constant", 1.2), ("oracle", 0.3)):
        (path,) = paths(chart, name)
        assert float(path.get("d")[1:].split()[0]) == pytest.approx(np.polyval(fit, value), abs=0.2)
    assert "a&lt;: 0.8000" in chart


def bars(chart: str) -> np.ndarray:
    """Left ends and widths [rows, parts, 2]."""
    found = [(float(bar.get("x")), float(bar.get("width"))) for bar in ET.fromstring(chart).iter("rect")]
    return np.array(found).reshape(-1, 6, 2)


def test_bars_add_up(rng: np.random.Generator) -> None:
    parts = rng.uniform(0, 0.3, (3, 6))
    chart = stacked_bars("KL", "KL", ["a", "b", "c<"], parts, CLASSES)
    placed, at = bars(chart), ticks(chart, "middle")
    np.testing.assert_allclose(placed[:, 1:, 0], placed[:, :-1].sum(2), atol=0.2)
    np.testing.assert_allclose(placed[:, 0, 0], at[0], atol=0.1)
    np.testing.assert_allclose(placed[:, :, 1], parts * (at[max(at)] - at[0]) / max(at), atol=0.2)
    assert (placed.sum(2) <= WIDTH).all()
    assert all(f"{name}: {line.sum():.4f}" in chart for name, line in zip(("a", "b", "c&lt;"), parts, strict=True))


def test_parts_below_zero_go_left() -> None:
    parts = np.array([[0.5, -0.1, 0.2, -0.05, 0.3, 0.1]])
    chart = stacked_bars("KL", "KL", ["a"], parts, CLASSES)
    (placed,), at = bars(chart), ticks(chart, "middle")
    zero = placed[0, 0]
    scale = placed[0, 1] / 0.5
    lefts = [0, -0.1, 0.5, -0.15, 0.7, 1.0]
    np.testing.assert_allclose((placed[:, 0] - zero) / scale, lefts, atol=1e-3)
    np.testing.assert_allclose(placed[:, 1] / scale, np.abs(parts[0]), atol=1e-3)
    assert at[0] == pytest.approx(zero, abs=0.1)
    assert placed[:, 0].min() >= 0
