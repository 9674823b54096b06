"""Pictures of a clip of audio: a window of it, or all of it with the boxes of its annotations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.datasets import RFCX
from hms_dist.panels.log_mel import LogMel
from hms_dist.panels.panel import AudioPanel, AudioWindow
from hms_dist.panels.waveform import Waveform
from hms_dist.recordings.audio import AudioRecording, read_audio
from hms_dist.report.parts import Box, box_places, panel_part
from hms_dist.report.sheet import Part

WINDOW_S, FFT_SAMPLES = 2048 / 48_000, 2048
"""Length of a transform's window, 2048 samples at 48 kHz; smallest length of the transform, zero-padded."""
MOST_FRAMES = 4096
"""Most columns of a spectrogram, about: those of long clips are further apart."""
RANGE_DB = 80.0
"""Range of the colours, from the loudest value down."""


@dataclass(frozen=True)
class Annotation:
    """An annotated box of a clip."""

    name: str
    """Class that was judged."""
    is_there: bool
    """Whether the class is present in it."""
    box: Box
    """Seconds of the clip and hertz."""


def window_parts(path: Path, at_s: float) -> tuple[str, list[Part]]:
    """Draw the window around `at_s`, seconds, of the length of RFCX's rows, moved inwards at the clip's ends: its times
    in words, and the parts of a sheet. Raises UserError naming the file, also for a time after its end."""
    clip = read_audio(path, RFCX.rate_hz)
    length_s = clip.samples.shape[1] / clip.rate_hz
    if not 0 <= at_s <= length_s:
        raise UserError(f"at: expected 0 to {length_s:g} s, the length of the recording, found {at_s:g} s")
    start = round(max(min(at_s - RFCX.window_s / 2, length_s - RFCX.window_s), 0) * clip.rate_hz)
    num_samples = max(min(RFCX.window_samples, clip.samples.shape[1]), 2 * FFT_SAMPLES)
    window = AudioWindow(recording=clip, start=start, num_samples=num_samples)
    panels = {
        "log_mel": _log_mel(clip.rate_hz, num_samples),
        "waveform": Waveform(rate_hz=clip.rate_hz, window_s=num_samples / clip.rate_hz, margin_s=0),
    }
    parts = [_part(name, panel, window) for name, panel in panels.items()]
    end = start + num_samples
    return f"{start / clip.rate_hz:.2f} to {end / clip.rate_hz:.2f} s", parts


def clip_part(clip: AudioRecording, annotations: Sequence[Annotation]) -> Part:
    """Draw a whole clip as a log-mel spectrogram with the boxes of its annotations, dashed for absent classes."""
    num_samples = max(clip.samples.shape[1], 2 * FFT_SAMPLES)
    panel = _log_mel(clip.rate_hz, num_samples)
    part = _part("log-mel power", panel, AudioWindow(recording=clip, start=0, num_samples=num_samples))
    rows, columns = part.pixels.shape
    boxes = [box_places(panel.spec, one.box, rows, columns) for one in annotations]
    return replace(
        part,
        boxes=tuple(boxes),
        dashed=tuple(not one.is_there for one in annotations),
        box_names=tuple(one.name for one in annotations),
    )


def _log_mel(rate_hz: int, num_samples: int) -> LogMel:
    """The panel LogMel at any rate and length, with the resolution in time that its defaults have at 48 kHz."""
    window = 2 * round(WINDOW_S * rate_hz / 2)
    hop = max(window // 4, num_samples // MOST_FRAMES)
    fft = max(FFT_SAMPLES, 1 << (window - 1).bit_length())
    return LogMel(
        rate_hz=rate_hz, window_s=num_samples / rate_hz, window_samples=window, fft_samples=fft, hop_samples=hop
    )


def _part(name: str, panel: AudioPanel, window: AudioWindow) -> Part:
    """Draw one panel of a window, with times of the recording."""
    spec, stored = panel.spec, panel.draw(None, window)
    first_s = window.start / window.recording.rate_hz
    assert spec.columns_s is not None
    times_s = (spec.columns_s[0] + first_s, spec.columns_s[1] + first_s)
    part = replace(panel_part(name, replace(spec, columns_s=times_s), stored, RFCX), marked=None)
    return replace(part, range=_range(part.pixels)) if spec.rows_hz else part


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Values of the first and the last colour: the loudest ones and RANGE_DB below, which noise hardly reaches."""
    loudest = float(values.max())
    lowest = float(np.quantile(values, 0.01))
    return max(min(lowest, loudest - 1e-3), loudest - RANGE_DB * np.log(10) / 10), loudest
