"""Atomic writes: a failure leaves what was there, and no temporary file behind."""

import hashlib

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


def test_digests_ignore_the_order_of_keys_only():
    assert canonical_json({"b": 1, "a": 2}) == b'{"a":2,"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest([1, 2]) != digest([2, 1])
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
