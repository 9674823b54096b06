"""The inner loop of reader threads: read members from files or memory, check, decompress and copy them into a batch.

Each thread calls `work` once and stays in it, without the GIL, until its stream ends; jobs and completions pass through
pipes. So Python code and the threads do not block each other. Importing this module imports numba.
"""

from typing import Any

import numpy as np
from llvmlite import binding
from numba import types
from numpy.typing import NDArray
from zstandard.backend_cffi import ffi, lib

from hms_dist.core.jit import compile_function
from hms_dist.stream.read.addresses import words_at
from hms_dist.stream.read.checksum import crc32_at, crc32_of_two

FILE, START, LENGTH, ADDRESS, FIRST_ITEM, NUM_ITEMS = range(6)
"""Columns of a request: file descriptor, or -1 if the bytes are in memory; first byte; number of bytes; address of the
bytes in memory (0: not read); first item and number of items."""
OFFSET, SIZE, CRC, PANEL, TARGET, STATE = range(6)
"""Columns of an item (one member): offset within the request, number of bytes, checksum, row of the table of panels,
address to copy its array to, state."""
COMPRESSED, NUM_BYTES, HEADER, HEADER_SIZE = range(4)
"""Columns of a panel: whether it is zstd, size of its array in bytes, address and size of the .npy header before it."""
NUM_REQUEST_COLUMNS, NUM_ITEM_COLUMNS = 6, 6
REQUESTS, NUM_REQUESTS, ITEMS, NUM_JOB_ITEMS = range(4)
"""Columns of a job: address and number of its requests and of its items."""
WAITING, DONE, FAILED = range(3)
"""States of an item."""
STOP = 255
"""Sent instead of a job's number: asks a thread to end; from a thread, reports that an exception ended it."""

binding.add_symbol("hms_dist_decompress", int(ffi.cast("uintptr_t", ffi.addressof(lib, "ZSTD_decompressDCtx"))))
_word = types.intp
_decompress = types.ExternalFunction("hms_dist_decompress", _word(_word, _word, _word, _word, _word))
_pread = types.ExternalFunction("pread", _word(types.int32, _word, _word, types.int64))
_read = types.ExternalFunction("read", _word(types.int32, _word, _word))
_write = types.ExternalFunction("write", _word(types.int32, _word, _word))
_memcpy = types.ExternalFunction("memcpy", _word(_word, _word, _word))
_memcmp = types.ExternalFunction("memcmp", types.int32(_word, _word, _word))


class Decompressor:
    """A zstd decompression context; one for each thread, reused for all members."""

    def __init__(self) -> None:
        self._context = ffi.gc(lib.ZSTD_createDCtx(), lib.ZSTD_freeDCtx)

    @property
    def address(self) -> int:
        """Address of the context; valid while this object exists."""
        return int(ffi.cast("uintptr_t", self._context))


@compile_function
def work(
    jobs_end: int, done_end: int, jobs: NDArray[np.int64], panels: NDArray[np.int64], stopped: Any, context: int
) -> None:
    """Receive numbers of jobs (rows of `jobs`) from one pipe, do the jobs, and send the numbers to the other; until
    STOP.

    `stopped`: uint8 [1]; when it is not 0, jobs are skipped. `context`: address of a Decompressor.
    """
    number = np.empty(1, np.uint8)
    scratch = np.empty(1 << 20, np.uint8)
    plain = np.empty(np.max(panels[:, NUM_BYTES] + panels[:, HEADER_SIZE]), np.uint8)
    while True:
        if _read(jobs_end, number.ctypes.data, 1) != 1:  # interrupted by a signal
            continue
        if number[0] == STOP:
            return
        if stopped[0] == 0:
            scratch = _job(jobs[number[0]], panels, scratch, plain, context)
        while _write(done_end, number.ctypes.data, 1) != 1:
            pass


@compile_function
def _job(job: Any, panels: Any, scratch: Any, plain: Any, context: int) -> Any:
    """Do all requests of a job; return the scratch memory, enlarged if it was too small."""
    requests = words_at(job[REQUESTS], job[NUM_REQUESTS] * NUM_REQUEST_COLUMNS).reshape(-1, NUM_REQUEST_COLUMNS)
    items = words_at(job[ITEMS], job[NUM_JOB_ITEMS] * NUM_ITEM_COLUMNS).reshape(-1, NUM_ITEM_COLUMNS)
    for request in requests:
        address, length = request[ADDRESS], request[LENGTH]
        from_file = request[FILE] >= 0
        if from_file:
            if length > len(scratch):
                scratch = np.empty(length, np.uint8)
            address = scratch.ctypes.data
            length = _read_request(request, items, panels, address)
        for place in range(request[FIRST_ITEM], request[FIRST_ITEM] + request[NUM_ITEMS]):
            item = items[place]
            panel = panels[item[PANEL]]
            member = address + item[OFFSET]
            good = address != 0 and item[OFFSET] + item[SIZE] <= length
            if from_file and _is_plain(item, panel):
                good = good and _check(member, item, panel)
            else:
                good = good and _decode(member, item, panel, plain, context)
            item[STATE] = DONE if good else FAILED
    return scratch


@compile_function
def _is_plain(item: Any, panel: Any) -> bool:
    """Whether a member is uncompressed, so that its array is read from the file directly into the batch."""
    return not panel[COMPRESSED] and item[SIZE] == panel[HEADER_SIZE] + panel[NUM_BYTES]


@compile_function
def _read_request(request: Any, items: Any, panels: Any, scratch: int) -> int:
    """Read a request: arrays of plain members into the batch, other bytes to `scratch`. Returns the number of bytes
    read.

    The items are in the order of the file. An item may appear twice, if the batch contains a row twice.
    """
    file, start, done = request[FILE], request[START], 0
    for place in range(request[FIRST_ITEM], request[FIRST_ITEM] + request[NUM_ITEMS]):
        item = items[place]
        panel = panels[item[PANEL]]
        if _is_plain(item, panel):
            first, array = min(done, item[OFFSET]), item[OFFSET] + panel[HEADER_SIZE]
            if _read_range(file, scratch + first, start + first, array - first) < array - first:
                return first
            if _read_range(file, item[TARGET], start + array, panel[NUM_BYTES]) < panel[NUM_BYTES]:
                return array
            done = max(done, array + panel[NUM_BYTES])
    return done + _read_range(file, scratch + done, start + done, request[LENGTH] - done)


@compile_function
def _read_range(file: int, address: int, start: int, length: int) -> int:
    """Read a range; return the number of bytes: fewer than `length` at the end of the file or after an error."""
    num_read = 0
    while num_read < length:
        got = _pread(file, address + num_read, length - num_read, start + num_read)
        if got <= 0:
            break
        num_read += got
    return num_read


@compile_function
def _check(member: int, item: Any, panel: Any) -> bool:
    """Check header (at `member`) and checksum of a plain member, whose array is in the batch already."""
    header, num_bytes = panel[HEADER_SIZE], panel[NUM_BYTES]
    if crc32_of_two(member, header, item[TARGET], num_bytes) != np.uint64(item[CRC]):
        return False
    return _memcmp(member, panel[HEADER], header) == 0


@compile_function
def _decode(member: int, item: Any, panel: Any, plain: Any, context: int) -> bool:
    """Check and decompress a member and copy its array into the batch; False if it is damaged."""
    if crc32_at(member, item[SIZE]) != np.uint64(item[CRC]):
        return False
    expected = panel[HEADER_SIZE] + panel[NUM_BYTES]
    found, content = item[SIZE], member
    if panel[COMPRESSED]:
        content = plain.ctypes.data
        found = _decompress(context, content, expected, member, item[SIZE])
    if found != expected or _memcmp(content, panel[HEADER], panel[HEADER_SIZE]) != 0:
        return False
    _memcpy(item[TARGET], content + panel[HEADER_SIZE], panel[NUM_BYTES])
    return True
