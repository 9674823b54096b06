"""One request in progress: its tables for the reader threads, and the rows that they could not read."""

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.stream.read import decode
from hms_dist.stream.read.batch import Batch, Request
from hms_dist.stream.read.reader import DamagedMemberError, ShardReader
from hms_dist.stream.read.replacements import Replacements
from hms_dist.stream.read.slots import Slot
from hms_dist.stream.read.storage import LocalFiles, OpenFile


class Job:
    """A request, the memory that it fills, and its tables for the reader threads."""

    def __init__(self, reader: ShardReader, request: Request, slot: Slot) -> None:
        """Raise IndexError for a row that is not in the set."""
        self.request, self.slot = request, slot
        self.ranges, self._fillers = reader.requests(request.rows, request.flips)
        self.tensors = slot.tensors(len(request.rows))
        self.errors: dict[int, Exception] = {}
        """Number of a range -> the error of reading it."""
        self._reader = reader
        self._files: list[OpenFile] = []
        self._contents: dict[int, NDArray[np.uint8]] = {}
        self.requests, self.items = self.ranges.table, self.ranges.items
        panel = self.items[:, decode.PANEL]
        starts: NDArray[np.int64] = np.array([tensor.data_ptr() for tensor in self.tensors], np.int64)
        self.items[:, decode.TARGET] = starts[panel] + self.ranges.place * reader.num_bytes[panel]

    def open_files(self, storage: LocalFiles) -> None:
        """Open the files, so that the reader threads read the ranges from them."""
        shards = self.ranges.shard
        starts = np.flatnonzero(np.diff(shards, prepend=-1)).tolist()  # ranges are in the order of the tars
        for start, end in zip(starts, [*starts[1:], len(shards)], strict=True):
            try:
                file = storage.open(self._reader.tars[shards[start]])
            except OSError as error:
                self.errors |= dict.fromkeys(range(start, end), error)
            else:
                self._files.append(file)
                self.requests[start:end, decode.FILE] = file.handle

    def set_content(self, number: int, content: bytes) -> None:
        """Set the bytes of a range that another thread has read."""
        kept = self._contents[number] = np.frombuffer(content, np.uint8)
        self.requests[number, decode.ADDRESS] = kept.ctypes.data
        self.requests[number, decode.LENGTH] = len(kept)

    def batch(self, replacements: Replacements | None) -> Batch:
        """Return the batch when the threads are done. Raises UserError for a member that cannot be read."""
        rows, flips = self.request.rows, self.request.flips
        damaged = self._read_again(replaceable=replacements is not None)
        if damaged and replacements is not None:
            rows, flips = rows.copy(), None if flips is None else flips.copy()
            for place, other in replacements.choose(self.request, damaged).items():
                replacements.log(damaged[place], self._reader.key(int(rows[other])))
                rows[place] = rows[other]
                if flips is not None:
                    flips[place] = flips[other]
                for tensor in self.tensors:
                    tensor[place] = tensor[other]
        panels = dict(zip(self._reader.specs, self.tensors, strict=True))
        return Batch(self.request, rows, flips, panels, self.slot)

    def _read_again(self, *, replaceable: bool) -> dict[int, DamagedMemberError]:
        """Read again the members that the threads could not read.

        Returns position and error of each damaged row; raises the error instead if rows are not replaceable.
        """
        damaged: dict[int, DamagedMemberError] = {}
        for item in np.flatnonzero(self.items[:, decode.STATE] != decode.DONE):
            slot, place = int(self.items[item, decode.PANEL]), int(self.ranges.place[item])
            row, member = int(self.request.rows[place]), int(self._fillers[slot, place])
            error = self.errors.get(int(np.searchsorted(self.requests[:, decode.FIRST_ITEM], item, side="right")) - 1)
            if isinstance(error, OSError):
                raise self._reader.failure(row, member, error) from error
            if error is not None:
                raise error
            try:
                self.tensors[slot][place] = torch.from_numpy(self._reader.member(row, member).copy())
            except DamagedMemberError as found:
                if not replaceable:
                    raise
                damaged[place] = found
        return damaged
