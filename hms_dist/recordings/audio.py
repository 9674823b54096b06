"""Recordings of audio: flac and wav files as one channel of samples at the rate of the data set."""

import io
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core import files, limits
from hms_dist.core.errors import UserError
from hms_dist.labels.recording_ids import recording_name

SUFFIXES = (".flac", ".wav")
"""Endings of files of audio."""
FORMATS = ("FLAC", "WAV", "WAVEX")
"""Formats that are decoded; libsndfile knows many more."""
MAX_RATIO = 1000
"""Largest numerator and denominator of the ratio of two sampling rates."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioRecording:
    """A recording of audio. Compared and hashed by identity."""

    name: str
    """Identifier of the recording: the file's name without its ending."""
    samples: NDArray[np.float32]
    """Samples [1, n], full scale 1."""
    rate_hz: int
    """Sampling rate."""

    def cut(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples from number `start` to before `stop`, float32 [1, stop - start]; zeros beyond the recording's
        ends."""
        found = np.zeros((1, stop - start), np.float32)
        first, last = max(start, 0), min(stop, self.samples.shape[1])
        if first < last:
            found[:, first - start : last - start] = self.samples[:, first:last]
        return found


def is_audio(path: Path) -> bool:
    """Whether the name of a recording is that of audio."""
    return path.suffix.lower() in SUFFIXES


class AudioReader:
    """Reads the recordings of a folder, DATA/<split>/<name>.flac or .wav, each once for consecutive rows."""

    def __init__(self, data: Path, split: str, rate_hz: int) -> None:
        self._folder, self._rate_hz = data / split, rate_hz
        self.fingerprints: dict[int, str] = {}
        """Number of each recording read so far -> `<bytes>-<CRC-32 in hex>` of its file."""
        self._last: tuple[int, AudioRecording] | None = None

    def read(self, number: int) -> AudioRecording:
        """Read a recording by its number (`recording_ids`). Raises UserError, naming the file, as `parse_audio`."""
        if self._last is None or self._last[0] != number:
            path = audio_path(self._folder, recording_name(number))
            content = audio_bytes(path)
            self.fingerprints[number] = f"{len(content)}-{zlib.crc32(content):08x}"
            self._last = (number, parse_audio(content, path, self._rate_hz))
        return self._last[1]


def audio_path(folder: Path, name: str) -> Path:
    """Find the file of a recording. Raises UserError if there is none, or one of each kind."""
    found = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
    if len(found) > 1:
        raise UserError(f"{found[1]}: {found[0].name} is there too; expected one file per recording; remove one")
    if not found:
        raise UserError(
            f"{folder / name}.flac: no such file, nor .wav; a table names this recording, so add it or remove its rows"
        )
    return found[0]


def length_s(path: Path) -> float | None:
    """Length of a file of audio by its header, seconds; None if that is not readable."""
    import soundfile

    try:
        info = soundfile.info(path)
    except (OSError, RuntimeError):
        return None
    return float(info.frames / info.samplerate) if info.samplerate > 0 else None


def read_audio(path: Path, rate_hz: int) -> AudioRecording:
    """Read a file of audio at `rate_hz`. Raises UserError as `parse_audio`."""
    return parse_audio(audio_bytes(path), path, rate_hz)


def parse_audio(content: bytes, path: Path, rate_hz: int) -> AudioRecording:
    """Decode flac or wav: channels averaged, resampled to `rate_hz` if it has another rate.

    Raises UserError naming the file if it is damaged, has no samples, more than allowed, or non-finite values.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            _check_size(path, file)
            found = file.read(dtype="float32", always_2d=True)
            announced, rate = file.frames, file.samplerate
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}: not a readable flac or wav file ({why[:100]}); download it again") from error
    if len(found) < announced:
        raise UserError(f"{path}: ends after {len(found)} of {announced} samples; damaged; download it again")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise UserError(f"{path}: sample {row}: expected finite numbers, found {found[row].tolist()}; convert it again")
    samples = np.ascontiguousarray(found.mean(axis=1, dtype=np.float32) if found.shape[1] > 1 else found[:, 0])
    return AudioRecording(name=path.stem, samples=_at_rate(samples, rate, rate_hz, path)[None], rate_hz=rate_hz)


def _check_size(path: Path, file: Any) -> None:
    """Check what the header announces before anything is decoded."""
    if file.format not in FORMATS:
        raise ValueError(f"a {file.format} file")
    if file.frames < 1:
        raise UserError(f"{path}: has no samples; expected audio; download it again or remove its rows")
    if file.frames * file.channels > limits.AUDIO_SAMPLES:
        found = f"{file.frames} samples of {file.channels} channels"
        raise UserError(f"{path}: {found}; expected at most {limits.AUDIO_SAMPLES}; cut it into parts")


def _at_rate(samples: NDArray[np.float32], rate: int, rate_hz: int, path: Path) -> NDArray[np.float32]:
    if rate == rate_hz:
        return samples
    ratio = Fraction(rate_hz, rate)
    if max(ratio.numerator, ratio.denominator) > MAX_RATIO:
        raise UserError(
            f"{path}: has {rate} Hz, whose ratio to {rate_hz} Hz is {ratio.numerator}/{ratio.denominator}; expected "
            f"numbers of at most {MAX_RATIO}; resample the file"
        )
    from scipy.signal import resample_poly

    return np.asarray(resample_poly(samples, ratio.numerator, ratio.denominator), np.float32)


def audio_bytes(path: Path) -> bytes:
    """Content of a file of audio. Raises UserError naming the file if it cannot be read, or is empty."""
    try:
        content = files.read_bytes(path, limits.AUDIO_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror}); check its permissions") from error
    if not content:
        raise UserError(f"{path}: the file is empty; expected flac or wav; download it again")
    return content
