"""Units of channels: factors by the dimension that a file states, and plausibility of the amplitudes."""

PLAUSIBLE_UV = (1.0, 1000.0)
"""Median distance from the mean of a scalp channel, microvolts; EEG is between 5 and 100."""
_FACTORS = {"uv": 1.0, "microv": 1.0, "microvolt": 1.0, "mv": 1e3, "millivolt": 1e3, "v": 1e6, "volt": 1e6, "nv": 1e-3}
_MICRO = ("\u00c2\u00b5", "\u00ce\u00bc", "\u00b5", "\u03bc")
"""The sign of micro and of the letter mu, also as UTF-8 that was read as Latin-1."""


def microvolts_of(dimension: str) -> float | None:
    """Return the factor that converts values of this dimension to microvolts; None if it is not a voltage."""
    word = dimension.strip()
    for sign in _MICRO:
        word = word.replace(sign, "u")
    word = word.lower()
    return _FACTORS.get(word, _FACTORS.get(word.removesuffix("s")))


def implausible(amplitude_uv: float) -> str | None:
    """Describe an amplitude that EEG does not have, without its value; None for a plausible one."""
    low, high = PLAUSIBLE_UV
    if low <= amplitude_uv <= high:
        return None
    if amplitude_uv == 0:
        return "amplitude 0: was anything recorded?"
    if amplitude_uv < low:
        return f"amplitude below {low:g} uV: are the values volts or millivolts? --unit states it"
    return f"amplitude above {high:g} uV: are the values nanovolts, or is no electrode connected?"
