"""Malformed recordings: each gives the line that docs/own_recordings.md has for it, and exit code 2."""

import os
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from hms_dist.cli import main

INPUTS = {}
PAGE = (Path(__file__).parents[2] / "docs/own_recordings.md").read_text()
LINES = dict(re.findall(r"^\| ([^|]+?) \| `(.+)` \|$", PAGE[PAGE.index("## Malformed recordings") :], re.MULTILINE))


def malformed(name, damage):
    """Register a function that damages the good file."""
    INPUTS[name] = damage


def field(place, value):
    """Overwrite bytes of the file's header."""

    def damage(path):
        content = bytearray(path.read_bytes())
        content[place : place + len(value)] = value
        path.write_bytes(content)

    return damage


def signal_field(offset, width, value, number=2):
    """Overwrite a field in the description of a signal."""

    def damage(path):
        content = bytearray(path.read_bytes())
        place = 256 + offset * int(content[252:256]) + width * number
        content[place : place + width] = value.ljust(width)
        path.write_bytes(content)

    return damage


def cut(length):
    def damage(path):
        path.write_bytes(path.read_bytes()[:length])

    return damage


malformed("an empty file", lambda path: path.write_bytes(b""))
malformed("text", lambda path: path.write_text("Fp1,Fp2\n1,2\n" * 100))
malformed("another version", field(0, b"1       "))
malformed("half a header", cut(3000))
malformed("a header alone", cut(5632))
malformed("less than a record", cut(5632 + 1000))
malformed("a truncated file", cut(5632 + 20_000))
malformed("no signals", field(252, b"0   "))
malformed("too many signals", field(252, b"9999"))
malformed("a number of signals that is a word", field(252, b"x21 "))
malformed("one signal more than described", field(252, b"22  "))
malformed("a wrong header size", field(184, b"5120    "))
malformed("no header size", field(184, b"        "))
malformed("zero records", field(236, b"0       "))
malformed("a negative number of records", field(236, b"-2      "))
malformed("far too many records", field(236, b"99999999"))
malformed("records of no length", field(244, b"0       "))
malformed("records of negative length", field(244, b"-1      "))
malformed("a length that is a word", field(244, b"nan     "))
malformed("a length with a comma", field(244, b"1,0     "))
malformed("records of an hour", field(244, b"3600    "))
malformed("no samples in a record", signal_field(216, 8, b"0"))
malformed("negative samples in a record", signal_field(216, 8, b"-200"))
malformed("samples that are a word", signal_field(216, 8, b"2oo"))
malformed("an enormous record", signal_field(216, 8, b"99999999"))
malformed("a digital range without width", signal_field(128, 8, b"-32768"))
malformed("an inverted digital range", signal_field(128, 8, b"-32769"))
malformed("a physical range without width", signal_field(104, 8, b"3276.7"))
malformed("a physical limit that is a word", signal_field(104, 8, b"many"))
malformed("an infinite physical limit", signal_field(104, 8, b"inf"))
malformed("a label twice", signal_field(0, 16, b"EEG F3-REF"))
malformed("a missing electrode", signal_field(0, 16, b"\x8d\xc3 EEG"))
malformed("another unit", signal_field(96, 8, b"%"))
malformed(
    "gaps without times",
    lambda path: (
        field(192, b"EDF+D")(path),
        path.write_bytes(path.read_bytes().replace(b"+0\x14\x14", b"0 \x14\x14")),
    ),
)
malformed(
    "times that go back",
    lambda path: (
        field(192, b"EDF+D")(path),
        path.write_bytes(path.read_bytes().replace(b"+2\x14\x14", b"+1\x14\x14")),
    ),
)
malformed(
    "annotations that are missing",
    lambda path: (field(192, b"EDF+D")(path), signal_field(0, 16, b"EDF Annotation", number=20)(path)),
)
malformed("a version of neither format", field(0, b"\xffBIOSEM "))


@pytest.fixture
def good(eeg, files, tmp_path):
    return files.write(tmp_path / "night.edf", eeg(4)(200))


def fails(capsys, *words):
    """Run import; return its line on standard error."""
    assert main(["import", *map(str, words), "--patient", "file", "--pictures", "0"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hms-dist")]
    return line


@pytest.mark.parametrize("name", INPUTS)
def test_malformed_edf_files(good, capsys, tmp_path, name) -> None:
    INPUTS[name](good)
    line = fails(capsys, "--data", tmp_path, "--out", tmp_path / "out", "--labels", "none")
    expected = ".*".join(re.escape(part) for part in LINES[name].split("…"))
    assert re.fullmatch(f"hms-dist import: {expected}", line), line
    assert not (tmp_path / "out/test.csv").exists()


def test_every_kind_is_documented() -> None:
    assert list(INPUTS) == list(LINES)
    assert len(INPUTS) >= 30


MATRICES = {
    "no matrix": ({"x": np.zeros((3, 3))}, "expected one matrix of 19 or 20 channels by samples, found x 3x3"),
    "two matrices": ({"x": np.zeros((20, 99)), "y": np.zeros((99, 20))}, "found x 20x99, y 99x20"),
    "no rate": ({"x": np.zeros((20, 99)), "Fs": "fast"}, "sampling rate: expected hertz, found"),
    "a rate of zero": ({"x": np.zeros((20, 99)), "Fs": 0.0}, "sampling rate: expected hertz, found"),
}


@pytest.mark.parametrize("name", MATRICES)
def test_malformed_matlab_files(tmp_path, capsys, name) -> None:
    values, message = MATRICES[name]
    savemat(tmp_path / "a.mat", values)
    line = fails(capsys, "--data", tmp_path, "--out", tmp_path / "out", "--labels", "none")
    assert line.startswith(f"hms-dist import: {tmp_path}/a.mat: ")
    assert message in line


@pytest.mark.parametrize(
    "content", [b"", b"no matlab", b"MATLAB 5.0 MAT-file" + bytes(200), b"\x89HDF\r\n\x1a\n" + bytes(600)]
)
def test_files_that_are_not_matlabs(tmp_path, capsys, content) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    line = fails(capsys, "--data", tmp_path, "--out", tmp_path / "out", "--labels", "none")
    assert "a.mat: " in line
    assert "MATLAB" in line


def test_a_matrix_that_announces_more_than_memory(tmp_path, capsys) -> None:
    """A compressed matrix states its size first: nothing is read then."""
    savemat(tmp_path / "a.mat", {"x": np.zeros((20, 99))})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(content.replace(struct.pack("<ii", 20, 99), struct.pack("<ii", 20, 2**30)))
    line = fails(capsys, "--data", tmp_path, "--out", tmp_path / "out", "--labels", "none")
    assert "expected at most 1073741824 bytes of values" in line


@pytest.mark.parametrize("name", ["a.vhdr", "a.fif", "a.set"])
def test_files_of_mne_that_are_damaged(tmp_path, capsys, name) -> None:
    pytest.importorskip("mne", reason="mne is not installed")
    (tmp_path / name).write_bytes(b"damaged")
    line = fails(capsys, "--data", tmp_path, "--out", tmp_path / "out", "--labels", "none")
    assert line.startswith(f"hms-dist import: {tmp_path / name}: mne cannot read it (")


def test_where_there_is_nothing(tmp_path, capsys) -> None:
    out = ("--out", tmp_path / "out")
    assert "no such file or folder; expected recordings" in fails(capsys, "--data", tmp_path / "none", *out)
    (tmp_path / "notes.txt").touch()
    assert "no recordings; expected names ending in .edf" in fails(capsys, "--data", tmp_path, *out)
    assert "notes.txt: unknown kind of recording" in fails(capsys, "--data", tmp_path / "notes.txt", *out)


@pytest.mark.parametrize(("module", "name", "extra"), [("mne", "a.fif", "mne"), ("edfio", "night.edf", "edf")])
def test_a_reader_that_is_not_installed_is_named(good, tmp_path, capsys, monkeypatch, module, name, extra) -> None:
    (tmp_path / "a.fif").touch()
    monkeypatch.setitem(sys.modules, module, None)
    line = fails(capsys, "--data", tmp_path / name, "--out", tmp_path / "out", "--labels", "none")
    assert f"{name}: " in line
    assert f"read by {module}: pip install 'hms-dist[{extra}]'" in line


def test_a_gap_of_years(good, files, tmp_path, capsys) -> None:
    """Nothing is written second by second for it."""
    files.with_gaps(files.write(good, np.zeros((20, 800)), annotations=[(0, None, "x" * 20)]), (0, 1, 2, 900_000_000))
    line = fails(capsys, "--data", good, "--out", tmp_path / "out", "--labels", "none")
    assert "expected at most 1800000 s, found 9e+08 s, gaps included" in line


def test_annotations_without_an_end_are_read_in_linear_time(good, tmp_path) -> None:
    """Thousands of beginnings, and no end: once quadratic."""
    from hms_dist.imports.edf import _tals

    began = os.times().user
    assert list(_tals(b"+1\x14a" * 400_000)) == []
    assert len(list(_tals(b"+1\x14a\x14\x00" * 10_000))) == 10_000
    assert os.times().user - began < 5
