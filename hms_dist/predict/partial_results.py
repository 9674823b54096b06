"""Finished parts of an unfinished prediction, stored next to its output: after a kill only missing parts are computed.

    OUT.parts/<key>/part-000007.npy     network outputs of the rows of one part
    OUT.parts/shards-<key>/             shards rendered only for this prediction

A key is a digest of everything that the content depends on, so a part of other weights or other shards is never used.
The folder is removed once the output is written.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.files import atomic, read_bytes, sealed_bytes, unsealed_bytes
from hms_dist.shards.index import Rows

MAX_PARTS = 256
"""Largest number of parts of a prediction; each holds whole batches."""


def parts_folder(out: Path) -> Path:
    """Folder of the parts of the prediction `out`."""
    return out.with_name(f"{out.name}.parts")


def begun(folder: Path, key: str, earlier_key: str) -> Path:
    """Return the folder of the parts of `key` in `folder`; that of `earlier_key` if an earlier version began them."""
    earlier = folder / earlier_key
    return earlier if earlier.is_dir() else folder / key


class Parts:
    """The parts of one prediction; the rows of a part do not depend on the number of ranks."""

    def __init__(self, folder: Path, *, num_rows: int, size: int, num_outputs: int) -> None:
        """`folder`: holds only these parts, named by their key; created if missing. `size`: rows of a batch."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._num_rows, self._num_outputs = folder, num_rows, num_outputs
        num_batches = -(-num_rows // size)
        self._size = max(-(-num_batches // MAX_PARTS), 1) * size
        self.numbers = range(-(-num_rows // self._size))
        """Numbers of all parts."""

    def rows_of(self, number: int) -> Rows:
        """Rows [n] of a part, ascending."""
        return np.arange(number * self._size, min((number + 1) * self._size, self._num_rows))

    def finished(self) -> dict[int, NDArray[np.float64]]:
        """Outputs [rows of the part, num_outputs] of the finished parts, by number."""
        found = {number: self._read(number) for number in self.numbers}
        return {number: outputs for number, outputs in found.items() if outputs is not None}

    def write(self, number: int, outputs: NDArray[np.float64]) -> None:
        """Write the outputs [rows of the part, num_outputs] of a part, atomically."""
        content = io.BytesIO()
        np.save(content, outputs)
        with atomic(self._path(number)) as file:
            file.write(sealed_bytes(content.getvalue()))

    def _read(self, number: int) -> NDArray[np.float64] | None:
        try:
            most = len(self.rows_of(number)) * self._num_outputs * 8 + 1024
            content = unsealed_bytes(read_bytes(self._path(number), most))
        except OSError:
            return None
        if content is None:  # damaged, or without digest (an earlier version): recomputed
            return None
        outputs: NDArray[np.float64] = np.load(io.BytesIO(content))
        return outputs if outputs.shape == (len(self.rows_of(number)), self._num_outputs) else None

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.npy"
