"""Units by dimension, and amplitudes that EEG does not have."""

import pytest

from hms_dist.imports.units import implausible, microvolts_of


@pytest.mark.parametrize(
    ("dimension", "factor"),
    [
        ("uV", 1), ("µV", 1), ("μV", 1), ("Âµv ", 1), ("microvolts", 1), ("mV", 1e3), ("MV", 1e3), ("V", 1e6),
        ("volt", 1e6), ("nV", 1e-3), ("", None), ("%", None), ("mm", None), ("bpm", None), ("uVV", None),
    ],
)  # fmt: skip
def test_dimensions(dimension, factor) -> None:
    assert microvolts_of(dimension) == factor


@pytest.mark.parametrize(
    ("amplitude_uv", "word"), [(0, "anything recorded"), (5e-5, "volts or millivolts"), (3e4, "nanovolts")]
)
def test_implausible_amplitudes(amplitude_uv, word) -> None:
    assert word in implausible(amplitude_uv)


@pytest.mark.parametrize("amplitude_uv", [1, 20, 1000])
def test_plausible_amplitudes(amplitude_uv) -> None:
    assert implausible(amplitude_uv) is None
