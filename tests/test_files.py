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

import pytest

from hms_dist.errors import verdict
from hms_dist.files import atomic, canonical_json, digest, sha256_of, write_json


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
from hms_dist.errors import verdict
from hms_dist.files import atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic(Path(sys.argv[1])) as file:
        file.write(bytes(2000))
except OSError as error:
    print(verdict(error))
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
    assert verdict(caught.value)[1].startswith(f"{tmp_path / 'a.bin'}: no space left on the disk")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB"), OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"), ImportError("libx.so: failed to map segment from shared object"),
    ],
)  # fmt: skip
def test_out_of_memory_is_one_line(error):
    code, line = verdict(error)
    assert code == 1
    assert re.fullmatch(r"out of memory \(.+\); ask for more, .*", line)
