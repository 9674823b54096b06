"""The format of a shard set: file names, panel specifications, and the encoding of members.

Imported by both halves; they share nothing else but the index.
"""

import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zstandard
from numpy.typing import NDArray

from hms_dist.core import limits
from hms_dist.core.errors import UserError

FORMAT_VERSION = 1
INDEX_NAME = "index.parquet"
MANIFEST_NAME = "manifest.json"
MANIFEST_COPY_NAME = "manifest.copy.json"
"""A copy of the manifest, to repair a damaged or lost one: no other file holds the recipe."""
REJECTED_NAME = "rejected.parquet"
"""Rows of the label table that could not be rendered; absent if there are none."""
JSON_MEMBER = "json"
ZSTD_LEVEL = -1
"""zstd level: faster to decode than level 1 (0.16 against 0.27 ms for the default panels of a row), tars 6 % larger."""
SIDES = {"LL": "RL", "RL": "LL", "LP": "RP", "RP": "LP"}
"""Region -> its opposite when left and right are exchanged."""

Array = NDArray[Any]
_MEMBER_NAME = re.compile(r"[^\W\d]\w{0,63}")


@dataclass(frozen=True, kw_only=True)
class PanelSpec:
    """Specification of a panel in the manifest: enough to decode its bytes and to interpret them."""

    shape: tuple[int, ...]
    """Shape of one sample's panel, before bits are packed."""
    dtype: Literal["bit", "uint8", "int16", "float16", "float32"]
    """Element type. Bits are packed along the last axis, first pixel in the highest bit. int16: samples of a signal.
    float32: pictures drawn on the device, which are not stored."""
    codec: Literal["npy", "npy.zst"]
    """Encoding of a member: a plain .npy file, or one compressed with zstd."""
    axes: tuple[str, ...]
    """Name of each axis of `shape`."""
    unit: str
    """Meaning of a value."""
    regions: tuple[str, ...] = ()
    """Regions ("LL") or channels ("Fp1-F3", "C3") along the first axis; empty: none."""
    traces: tuple[str, ...] = ()
    """For a picture of traces: their channels from top to bottom, with equal shares of the rows."""
    value_range: tuple[float, float] | None = None
    """For uint8: the values, in `unit`, that 0 and 255 stand for. For int16: those of -32768 and 32768. None:
    values are stored directly."""
    rows_hz: tuple[float, ...] = ()
    """Centre frequency, hertz, of each row of a frequency axis; empty: none."""
    columns_s: tuple[float, float] | None = None
    """Time of the centres of the first and the last column, in seconds from the start of the row's 50 s (of its 10
    minutes for the 10-minute spectrogram); columns are evenly spaced. None: not specified."""

    def __post_init__(self) -> None:
        self._check_types()
        if self.dtype == "bit" and self.shape[-1] % 8:
            raise ValueError(f"shape: the last axis of packed bits must be a multiple of 8, found {self.shape[-1]}")
        if (self.dtype in ("uint8", "int16")) != (self.value_range is not None):
            raise ValueError("value_range: uint8 and int16 panels need one, others have none")

    def _check_types(self) -> None:
        """Raise ValueError for values that no writer produces: a manifest may come from elsewhere."""
        if not self.shape or not all(type(size) is int and size >= 1 for size in self.shape):
            raise ValueError(f"shape: expected integers of at least 1, found {list(self.shape)}")
        if self.dtype not in ("bit", "uint8", "int16", "float16", "float32") or self.codec not in ("npy", "npy.zst"):
            raise ValueError(f"dtype, codec: unknown '{self.dtype}' or '{self.codec}'")
        if math.prod(self.shape) > 8 * limits.PANEL_BYTES or self.num_bytes > limits.PANEL_BYTES:
            raise ValueError(f"shape: {list(self.shape)} takes more than {limits.PANEL_BYTES} bytes per sample")
        texts = (self.unit, *self.axes, *self.regions, *self.traces)
        if len(self.axes) != len(self.shape) or not all(isinstance(text, str) for text in texts):
            raise ValueError("axes, unit, regions, traces: expected texts, and an axis for each number of the shape")
        pairs = [pair for pair in (self.value_range, self.columns_s) if pair is not None]
        numbers = [*self.rows_hz, *(number for pair in pairs for number in pair)]
        if any(len(pair) != 2 for pair in pairs) or not all(_is_finite(number) for number in numbers):
            raise ValueError("value_range, rows_hz, columns_s: expected finite numbers, two of them for a range")

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the array in the member: bits are packed eight to a byte."""
        return (*self.shape[:-1], self.shape[-1] // 8) if self.dtype == "bit" else self.shape

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Element type of the array in the member."""
        return np.dtype("uint8" if self.dtype == "bit" else self.dtype)

    @property
    def num_bytes(self) -> int:
        """Bytes of the stored array."""
        return math.prod(self.stored_shape) * self.stored_dtype.itemsize

    @property
    def most_member_bytes(self) -> int:
        """Largest size of a member: array, header and, if it is compressed, the overhead of zstd."""
        size = len(self.npy_header) + self.num_bytes
        return limits.max_zstd_bytes(size) if self.codec == "npy.zst" else size

    @property
    def npy_header(self) -> bytes:
        """The .npy header before the array; the same for every sample."""
        buffer = io.BytesIO()
        header = {
            "descr": self.stored_dtype.newbyteorder("<").str,
            "fortran_order": False,
            "shape": self.stored_shape,
        }
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()

    def encode(self, array: Array) -> bytes:
        """Encode a panel [*shape] (bool for bits) as a member. Raises ValueError for another shape or dtype."""
        if array.shape != self.shape:
            raise ValueError(f"panel of shape {array.shape}, expected {self.shape}")
        if self.dtype == "bit":
            array = np.packbits(array, axis=-1)
        if array.dtype != self.stored_dtype:
            raise ValueError(f"panel of {array.dtype}, expected {self.stored_dtype}")
        payload = self.npy_header + np.ascontiguousarray(array).tobytes()
        return zstandard.compress(payload, ZSTD_LEVEL) if self.codec == "npy.zst" else payload

    def decode(self, member: bytes | memoryview) -> Array:
        """Decode a member to the stored array [*stored_shape], in the stored dtype (bits packed in uint8).

        Raises ValueError if the bytes do not fit.
        """
        size = len(self.npy_header) + self.num_bytes
        if self.codec == "npy.zst":
            try:
                announced = zstandard.frame_content_size(member)
                if announced != size:  # before any memory is allocated for it
                    raise ValueError(f"not a zstd frame of {size} bytes (it announces {announced})")
                payload = zstandard.decompress(member, max_output_size=size)
            except zstandard.ZstdError as error:
                raise ValueError(f"not a zstd frame of {size} bytes ({error})") from error
        else:
            payload = bytes(member)
        if len(payload) != size or not payload.startswith(self.npy_header):
            raise ValueError(f"not a .npy of {self.stored_dtype} {self.stored_shape}")
        array = np.frombuffer(payload, self.stored_dtype, offset=len(self.npy_header))
        return array.reshape(self.stored_shape)


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:06d}.tar"


def is_member_name(name: str) -> bool:
    """Whether a panel may have this name: its members are files in a tar, `<key>.<name>.<codec>`."""
    return name != JSON_MEMBER and _MEMBER_NAME.fullmatch(name) is not None


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def spec_from_json(values: Mapping[str, Any]) -> PanelSpec:
    """Build a panel specification from the manifest's JSON. Raises UserError if it is invalid."""
    try:
        tuples: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        spec = PanelSpec(**tuples)
        if spec.dtype == "float32":
            raise ValueError("dtype: float32 is not stored")
        return spec
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{MANIFEST_NAME}: bad panel specification ({error}); written by another version?") from error


def mirrored(names: Sequence[str]) -> tuple[str, ...]:
    """Opposite regions or channels of `names` when left and right are exchanged.

    Electrodes with odd numbers are on the left, and the next even number is their opposite (10-20 system): Fp1-F3
    becomes Fp2-F4; Fz-Cz and EKG are unchanged.
    """
    return tuple(SIDES.get(name, re.sub(r"\d+", _opposite, name)) for name in names)


def _opposite(number: re.Match[str]) -> str:
    return str(int(number[0]) + (1 if int(number[0]) % 2 else -1))


def member_name(key: str, panel: str, spec: PanelSpec | None = None) -> str:
    """Name of a member inside the tar: `<key>.<panel>.npy.zst`, or `<key>.json`."""
    return f"{key}.{panel}.{spec.codec}" if spec else f"{key}.{panel}"


def member_order(members: Iterable[str]) -> list[str]:
    """Order of members in a tar and in the index: json, then panels by name, independent of the recipe's order."""
    return sorted(members, key=lambda member: (member != JSON_MEMBER, member))


def json_member(values: Mapping[str, Any]) -> bytes:
    """Encode the `json` member: ids, offsets, votes."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode()


def crc32(member: bytes | memoryview) -> int:
    """CRC-32 of a member's bytes, as stored in the index."""
    return zlib.crc32(member)
