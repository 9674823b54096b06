"""Atomic writes: a failure leaves what was there, and no temporary file behind."""

import errno
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_dist.config.safe_yaml import read_record
from hms_dist.core.errors import UserError, exit_status
from hms_dist.core.files import (
    atomic,
    canonical_json,
    check_sealed_text,
    digest,
    sealed,
    sealed_text,
    sha256_of,
    unsealed,
    write_json,
)
from hms_dist.core.parquet import read_table, write_table


def test_a_failed_write_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic(path, "w") as file:
        file.write("half of" + str(1 / 0))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_finished_write_replaces_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1})
    write_json(path, {"a": [1.5, None]})
    assert path.read_text() == '{\n "a": [\n  1.5,\n  null\n ]\n}\n'
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_writers_of_one_process_number_do_not_meet(tmp_path):
    """As in containers, where each is number 1, and in threads."""
    path, values = tmp_path / "a.json", [[number] * 2000 for number in range(8)]
    write_json(path, values[0])
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write_json, path, value) for value in values * 5]
        while not all(job.done() for job in writing):
            assert json.loads(path.read_bytes()) in values
        assert [job.exception() for job in writing] == [None] * 40
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


WRITER = """
import os, signal, sys
from pathlib import Path
from hms_dist.core.files import atomic
with atomic(Path(sys.argv[1]), "w") as file:
    print("writing", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    file.write(sys.stdin.readline())
"""


def test_a_write_removes_what_killed_writers_left(tmp_path, repository):
    def writer(name, end):
        words = [sys.executable, "-c", WRITER, str(tmp_path / name), end]
        process = subprocess.Popen(words, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "writing\n"
        return process

    alive, killed = writer("alive.txt", "alive"), writer("killed.txt", "killed")
    killed.wait()
    (left,) = tmp_path.glob(".killed.txt.*")
    (used,) = tmp_path.glob(".alive.txt.*")
    elsewhere = left.with_name(re.sub(r"[0-9a-f]{12}-", "0123456789ab-", left.name, count=1))
    assert elsewhere != left
    earlier, old = tmp_path / f".page.html.{32 * 'a'}.tmp", tmp_path / f".page.html.{32 * 'b'}.tmp"
    old_elsewhere, notes = tmp_path / elsewhere.name.replace("killed", "old"), tmp_path / ".notes.tmp"
    for path in (elsewhere, earlier, old, old_elsewhere, notes):
        path.touch()
    for path in (old, old_elsewhere, notes):
        os.utime(path, (0, 0))
    write_json(tmp_path / "a.json", 1)
    kept = {elsewhere, earlier, notes, used, tmp_path / "a.json"}
    assert set(tmp_path.iterdir()) == kept
    alive.communicate("whole", timeout=240)
    assert (tmp_path / "alive.txt").read_text() == "whole"
    assert set(tmp_path.iterdir()) == kept - {used} | {tmp_path / "alive.txt"}


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_json(tmp_path / "no/a.json", 1)
    assert caught.value.filename == str(tmp_path / "no/a.json")


def test_digests_ignore_the_order_of_keys_only():
    assert canonical_json({"b": 1, "a": 2}) == b'{"a":2,"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest([1, 2]) != digest([2, 1])
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


TEXT = "epochs: 3\nmodel:\n  name: resnet18 # of timm\n"
VALUE = {"b": [1.5, None, "x"], "a": {"0": 0.1}}
FRAME = pd.DataFrame(
    {
        "key": ["1-0", "22-1"],
        "eeg_id": [2**53 + 1, 22],
        "fold": pd.array([0, pd.NA], "Int64"),
        "lpd": [0.25, float("nan")],
    }
)


def read_value(path):
    return unsealed(json.loads(path.read_bytes()), path)


def read_frame(path):
    return read_table(path).to_pandas().astype(FRAME.dtypes)  # without metadata, nulls make a column float


def write_frame(path):
    write_table(path, pa.Table.from_pandas(FRAME, preserve_index=False))


KINDS = {
    "text": (
        lambda path: path.write_text(sealed_text(TEXT)),
        read_record,
        {"epochs": 3, "model": {"name": "resnet18"}}.__eq__,
    ),
    "json": (lambda path: write_json(path, sealed(VALUE)), read_value, lambda found: found == VALUE),
    "parquet": (write_frame, read_frame, FRAME.equals),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_refused_or_changes_nothing(kind, tmp_path, rng):
    write, read, is_same = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    content = path.read_bytes()
    assert is_same(read(path))
    num_refused = 0
    for place in rng.integers(len(content), size=300):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            # A flip in the mark or the key of the digest leaves a file without one, whose content is whole.
            found = read(path)
            found = {name: found[name] for name in VALUE} if kind == "json" else found
            assert is_same(found), place
        except (UserError, OSError, pa.ArrowException, ValueError):
            num_refused += 1
    assert num_refused > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_a_digest_is_taken_as_it_is(kind, tmp_path):
    """As earlier versions wrote it, or as a person leaves it who changed it."""
    path = tmp_path / "file"
    if kind == "text":
        path.write_text("epochs: 4\n")
        check_sealed_text(path)
    elif kind == "json":
        assert unsealed({"a": 1}, path) == {"a": 1}
    else:
        FRAME.to_parquet(path)
        assert FRAME.equals(read_frame(path))


def test_messages_about_a_changed_file(tmp_path):
    text, table = tmp_path / "config.yaml", tmp_path / "t.parquet"
    text.write_text(sealed_text(TEXT).replace("3", "4", 1))
    with pytest.raises(UserError, match=r"config.yaml: its digest does not match, .* or remove its last line if you"):
        check_sealed_text(text)
    with pytest.raises(UserError, match=r"x.json: its digest does not match, .* or remove its key 'digest' if you"):
        unsealed({**sealed(VALUE), "a": 2}, tmp_path / "x.json")
    write_frame(table)
    stored = pq.read_table(table)
    pq.write_table(stored.set_column(3, "lpd", pa.array([0.5, 0.5])), table)
    with pytest.raises(UserError, match=r"t.parquet: its digest does not match"):
        read_table(table)


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    """Older CIFS, VirtualBox's shared folders and some of FUSE answer EINVAL for a folder."""
    real = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "a.json", 1)
    assert json.loads((tmp_path / "a.json").read_bytes()) == 1


def test_a_file_that_cannot_be_synced_is_an_error(tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        write_json(tmp_path / "a.json", 1)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
from pathlib import Path
from hms_dist.core.errors import exit_status
from hms_dist.core.files import atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic(Path(sys.argv[1])) as file:
        file.write(bytes(2000))
except OSError as error:
    print(exit_status(error))
"""


def test_a_limit_on_the_size_of_files_names_the_file(tmp_path, repository):
    words = [sys.executable, "-c", LIMITED, str(tmp_path / "a.bin")]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=True)
    line = f"{tmp_path / 'a.bin'}: larger than the limit on the size of files; raise it (ulimit -f)"
    assert done.stdout.strip() == str((1, line))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert exit_status(caught.value)[1].startswith(f"{tmp_path / 'a.bin'}: no space left on the disk")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB"), OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"), ImportError("libx.so: failed to map segment from shared object"),
    ],
)  # fmt: skip
def test_out_of_memory_is_one_line(error):
    code, line = exit_status(error)
    assert code == 1
    assert re.fullmatch(r"out of memory \(.+\); ask for more, .*", line)
