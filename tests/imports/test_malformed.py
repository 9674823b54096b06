"""Malformed recordings: each gives one line with the file, what was expected, and exit code 2."""

import struct

import numpy as np
import pytest
from scipy.io import savemat

from hms_dist.cli import main

INPUTS = {}


def malformed(name, message):
    """Register a function that spoils the good file, and what the line must contain."""

    def register(spoil):
        INPUTS[name] = (spoil, message)
        return spoil

    return register


def field(place, value):
    """Overwrite bytes of the file's header."""

    def spoil(path):
        content = bytearray(path.read_bytes())
        content[place : place + len(value)] = value
        path.write_bytes(content)

    return spoil


def signal_field(offset, width, value, number=2):
    """Overwrite a field in the description of a signal."""

    def spoil(path):
        content = bytearray(path.read_bytes())
        place = 256 + offset * int(content[252:256]) + width * number
        content[place : place + width] = value.ljust(width)
        path.write_bytes(content)

    return spoil


def cut(length):
    def spoil(path):
        path.write_bytes(path.read_bytes()[:length])

    return spoil


malformed("an empty file", "not an EDF or BDF file")(lambda path: path.write_bytes(b""))
malformed("text", "not an EDF or BDF file")(lambda path: path.write_text("Fp1,Fp2\n1,2\n" * 100))
malformed("another version", "not an EDF or BDF file")(field(0, b"1       "))
malformed("half a header", "expected 5632 bytes for 21 signals, found 3000")(cut(3000))
malformed("a header alone", "found 0 bytes; the file has no signals")(cut(5632))
malformed("less than a record", "found 1000 bytes; the file has no signals")(cut(5632 + 1000))
malformed("a truncated file", "truncated: the header announces 4 records, the file holds 2.")(cut(5632 + 20_000))
malformed("no signals", "number of signals: expected 1 to 2048, found '0'")(field(252, b"0   "))
malformed("too many signals", "number of signals: expected 1 to 2048, found '9999'")(field(252, b"9999"))
malformed("a number of signals that is no number", "number of signals: expected 1 to 2048, found 'x21'")(
    field(252, b"x21 ")
)
malformed("one signal more than described", "expected 5888 bytes for 22 signals, found 5632")(field(252, b"22  "))
malformed("a wrong header size", "expected 5632 bytes for 21 signals, found 5120")(field(184, b"5120    "))
malformed("no header size", "bytes of the header: expected")(field(184, b"        "))
malformed("zero records", "expected at least 1 record, found 0")(field(236, b"0       "))
malformed("a negative number of records", "number of records: expected -1 to")(field(236, b"-2      "))
malformed("far too many records", "truncated: the header announces 99999999 records")(field(236, b"99999999"))
malformed("records of no length", "expected records of above 0 s, found 0")(field(244, b"0       "))
malformed("records of negative length", "seconds of a record: expected a number of at least 0, found '-1'")(
    field(244, b"-1      ")
)
malformed("a length that is no number", "seconds of a record: expected a number of at least 0, found 'nan'")(
    field(244, b"nan     ")
)
malformed("a length with a comma", "seconds of a record: expected a number of at least 0, found '1,0'")(
    field(244, b"1,0     ")
)
malformed("records of an hour", "expected 50 to 100000 Hz, found 0.0555556 Hz")(field(244, b"3600    "))
malformed("no samples in a record", "'EEG C3-REF': expected samples per record above 0, found 0")(
    signal_field(216, 8, b"0")
)
malformed("negative samples in a record", "expected samples per record above 0, found -200")(
    signal_field(216, 8, b"-200")
)
malformed("samples that are no number", "header: not readable")(signal_field(216, 8, b"2oo"))
malformed("an enormous record", "expected records of 1 to 67108864 bytes")(signal_field(216, 8, b"99999999"))
malformed("a digital range without width", "a digital minimum below the maximum, found -32768 and -32768")(
    signal_field(128, 8, b"-32768")
)
malformed("an inverted digital range", "a digital minimum below the maximum, found -32768 and -32769")(
    signal_field(128, 8, b"-32769")
)
malformed("a physical range without width", "two different physical limits, found 3276.7 and 3276.7")(
    signal_field(104, 8, b"3276.7")
)
malformed("a physical limit that is no number", "'EEG C3-REF': expected numbers as its limits")(
    signal_field(104, 8, b"many")
)
malformed("an infinite physical limit", "'EEG C3-REF': expected numbers as its limits")(signal_field(104, 8, b"inf"))
malformed("a label twice", "expected one channel for F3, found 'EEG F3-REF' (channel 2) and 'EEG F3-REF' (channel 3)")(
    signal_field(0, 16, b"EEG F3-REF")
)
malformed("a missing electrode", "missing C3; found 'EEG FP1-REF'")(signal_field(0, 16, b"\x8d\xc3 EEG"))
malformed("another unit", "channel 'EEG C3-REF': expected unit uV, mV or V, found '%'")(signal_field(96, 8, b"%"))
malformed("gaps without times", "record 1 has no time, which EDF+D needs")(
    lambda path: (field(192, b"EDF+D")(path), path.write_bytes(path.read_bytes().replace(b"+0\x14\x14", b"0 \x14\x14")))
)
malformed("times that go back", "record 3 begins at 1 s, before record 2 ends")(
    lambda path: (field(192, b"EDF+D")(path), path.write_bytes(path.read_bytes().replace(b"+2\x14\x14", b"+1\x14\x14")))
)
malformed("annotations that are missing", "states EDF+D, but the file has no annotations")(
    lambda path: (field(192, b"EDF+D")(path), signal_field(0, 16, b"EDF Annotation", number=20)(path))
)
malformed("a BDF file named EDF of two bytes", "not an EDF or BDF file")(field(0, b"\xffBIOSEM "))


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
    spoil, message = INPUTS[name]
    spoil(good)
    line = fails(capsys, "--data", tmp_path, "--out", tmp_path / "out", "--labels", "none")
    assert line.startswith(f"hms-dist import: {good}: ")
    assert message in line
    assert not (tmp_path / "out/test.csv").exists()


def test_there_are_30_kinds() -> None:
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
    assert "no such folder; expected recordings" in fails(capsys, "--data", tmp_path / "none", *out)
    (tmp_path / "notes.txt").touch()
    assert "no recordings; expected names ending in .edf" in fails(capsys, "--data", tmp_path, *out)
    assert "notes.txt: unknown kind of recording" in fails(capsys, "--data", tmp_path / "notes.txt", *out)
