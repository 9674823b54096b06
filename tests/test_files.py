"""Atomic writes: a failure leaves what was there, and no temporary file behind."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

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
