"""Peers' ways to make the same pictures: the libraries' own functions in plain loops.

Where the public 16th place's pipeline leaves a choice, the faster way is taken: one canvas for all traces, pyarrow in
one thread, Pillow's bilinear resize. Packages of the `bench` extra are imported where they are used.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pywt
from PIL import Image
from scipy import signal

from hms_dist.core.signal_format import CHANNELS
from hms_dist.signals.montage import CHAINS, TRACE_PAIRS, TRACE_SCALES_UV

BAND_ROWS, WIDTH = 32, 1600
FORMS = {
    "16th place": {"n_fft": 1000, "hop_length": 40, "center": False},
    "public baseline": {"n_fft": 1024, "hop_length": 39, "win_length": 128},
}
"""The two published EEG spectrograms as arguments of librosa."""


def draw_traces(levels: np.ndarray) -> np.ndarray:
    """justpyplot: traces `levels` [20, samples] as lines on one RGBA canvas; its alpha as bool [640, 1600]."""
    from justpyplot.justpyplot import vectorized_lines_with_thickness

    canvas = np.zeros((len(levels) * BAND_ROWS, WIDTH, 4), np.uint16)
    columns = np.arange(levels.shape[1]) * (WIDTH - 1) // levels.shape[1]
    for trace, level in enumerate(levels):
        top, bottom = max(trace * BAND_ROWS - BAND_ROWS // 2, 0), (trace + 1) * BAND_ROWS + BAND_ROWS // 2
        part = canvas[top:bottom, :-1]
        rows = (-level * len(part)).astype(int) + len(part)
        vectorized_lines_with_thickness(rows[:-1], columns[:-1], rows[1:], columns[1:], part, 1, (255, 255, 255, 255))
    return canvas[..., 3] > 0


def differences(eeg: np.ndarray) -> np.ndarray:
    """The 16 differences of `eeg` [samples, 20], gaps filled with their mean: [16, samples]."""
    result = []
    for pair in (pair for chain in CHAINS.values() for pair in chain):
        plus, minus = (eeg[:, CHANNELS.index(name)] for name in pair)
        difference = plus.astype(np.float64) - minus
        result.append(np.nan_to_num(difference, nan=float(np.nanmean(difference))))
    return np.stack(result)


def eeg_spectrogram(eeg: np.ndarray, form: str) -> np.ndarray:
    """librosa, difference by difference: mean decibel of the four chains, float [4, 128, frames]."""
    import librosa

    decibel = [
        librosa.power_to_db(
            librosa.feature.melspectrogram(y=difference, sr=200, n_mels=128, fmin=0, fmax=20, **FORMS[form]),
            ref=np.max,
        )
        for difference in differences(eeg)
    ]
    return np.reshape(decibel, (4, 4, *decibel[0].shape)).mean(axis=1)


def scalogram_pywt(
    signals: np.ndarray, rows_hz: np.ndarray, columns: np.ndarray, num_cycles: float, method: str
) -> np.ndarray:
    """pywt.cwt of `signals` [16, samples], all at once: mean amplitude of each chain, [4, rows, columns]."""
    wavelet = f"cmor{2 * (num_cycles / (2 * np.pi)) ** 2:.6f}-1.0"
    scales = 200 / rows_hz
    coefficients, _ = pywt.cwt(signals, scales, wavelet, method=method, axis=-1)
    amplitude = np.abs(coefficients[..., columns]) * (2 / np.sqrt(scales))[:, None, None]
    return amplitude.reshape(len(scales), 4, 4, -1).mean(axis=2).swapaxes(0, 1)


def scalogram_fcwt(signals: np.ndarray, rows_hz: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """fCWT, its own Morlet wavelet (parameter 2), one thread, signal by signal: [4, rows, columns]."""
    import fcwt

    amplitude = []
    for one in signals:
        _, coefficients = fcwt.cwt(one, 200, rows_hz[0], rows_hz[-1], len(rows_hz), nthreads=1, scaling="log")
        amplitude.append(np.abs(coefficients[:, columns]))
    return np.reshape(amplitude, (4, 4, len(rows_hz), -1)).mean(axis=1)


def wavelet_statistics(signals: np.ndarray, starts: np.ndarray, window_samples: int) -> np.ndarray:
    """pywt, a channel and a window at a time: mean and standard deviation of each level, [channels, 12, windows]."""
    result = np.empty((len(signals), 12, len(starts)))
    for channel, one in enumerate(signals):
        for column, start in enumerate(starts):
            bands = pywt.wavedec(one[start : start + window_samples], "db1", level=5)
            result[channel, :, column] = [value for band in bands for value in (band.mean(), band.std())]
    return result


def record(data: Path, fields: dict[str, Any]) -> bytes:
    """The 16th place's picture of one label row as PNG: pandas, librosa, scipy, justpyplot, Pillow; no mirror image.

    As published, the EEG spectrogram is that of the whole recording, of which the row's 226 frames are taken.
    """
    eeg = pd.read_parquet(data / f"train_eegs/{fields['eeg_id']}.parquet")[list(CHANNELS)].to_numpy()
    table = pd.read_parquet(data / f"train_spectrograms/{fields['spectrogram_id']}.parquet")
    powers = table[table["time"] >= fields["spectrogram_label_offset_seconds"]].iloc[:300, 1:].to_numpy()
    start = round(fields["eeg_label_offset_seconds"] * 200)
    frames = eeg_spectrogram(eeg, "16th place")[..., start // 40 :][..., :226]
    image = np.zeros((640, 1920), np.uint8)
    image[:320, :320] = resized(ten_minutes(powers))
    image[320:, :320] = resized(frames.transpose(2, 0, 1).reshape(226, 512) / 80 + 1)
    image[:, 320:] = draw_traces(trace_levels(eeg[start + 3000 : start + 7000])) * np.uint8(255)
    png = BytesIO()
    Image.fromarray(image).save(png, format="png")
    return png.getvalue()


def ten_minutes(powers: np.ndarray) -> np.ndarray:
    """The 16th place's normalisation: log10 between its 1 % and 99 % quantile, 0 to 1."""
    logs = np.log10(np.nan_to_num(powers) + 1e-6)
    low, high = np.quantile(logs, [0.01, 0.99])
    return (logs.clip(low, high) - low) / (high - low)


def resized(picture: np.ndarray) -> np.ndarray:
    """`picture` of values 0 to 1 as uint8 [320, 320]."""
    levels = np.rint(picture * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).resize((320, 320), Image.Resampling.BILINEAR))


def trace_levels(eeg: np.ndarray) -> np.ndarray:
    """The 16th place's filters, trace by trace, and its scales: heights 0 to 1, [20, 4000]."""
    stop = signal.butter(5, (59, 61), "bandstop", fs=200)
    band = signal.butter(5, (1, 70), "bandpass", fs=200)
    levels = []
    for pair, scale_uv in zip(TRACE_PAIRS, TRACE_SCALES_UV, strict=True):
        trace = eeg[:, CHANNELS.index(pair[0])]
        if len(pair) == 2:
            trace = trace - eeg[:, CHANNELS.index(pair[1])]
        filtered = signal.lfilter(*band, signal.lfilter(*stop, np.nan_to_num(trace)))
        level = (filtered.clip(-2 * scale_uv, 2 * scale_uv) + 2 * scale_uv) / (4 * scale_uv)
        level[0], level[-1] = 0, 1
        levels.append(level)
    return np.stack(levels)
