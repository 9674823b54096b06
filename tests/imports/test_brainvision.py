"""Pauses of BrainVision recordings: gaps at the seconds of the markers' dates; mne reads the samples as the oracle."""

import datetime
import json

import numpy as np
import pytest

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.imports.open_recording import opened
from hms_dist.imports.signal import Signal, SignalOptions

mne = pytest.importorskip("mne", reason="mne is not installed")

BEGAN = datetime.datetime(2013, 11, 13, 23, 59, 50, 250_000)
HEADER = """Brain Vision Data Exchange Header File Version 1.0

[Common Infos]
Codepage=UTF-8
DataFile={stem}.eeg
MarkerFile={stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={number}
SamplingInterval={interval}

[Binary Infos]
BinaryFormat=INT_16

[Channel Infos]
{channels}
"""


def date(seconds: float) -> str:
    return (BEGAN + datetime.timedelta(seconds=seconds)).strftime("%Y%m%d%H%M%S%f")


def write(path, signals, rate_hz, markers):
    """Write microvolts at 0.1 a step; `markers`: (type, description, first sample from 0, samples, date)."""
    channels = "\n".join(f"Ch{number}={name},,0.1,µV" for number, name in enumerate(CHANNELS, 1))
    path.write_text(
        HEADER.format(stem=path.stem, number=len(CHANNELS), interval=round(1e6 / rate_hz), channels=channels)
    )
    np.rint(signals.T * 10).astype("<i2").tofile(path.with_suffix(".eeg"))
    lines = [
        f"Mk{number}={kind},{text},{first + 1},{size},0" + (f",{when}" if when else "")
        for number, (kind, text, first, size, when) in enumerate(markers, 1)
    ]
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\r\n\r\n[Common Infos]\r\nCodepage=UTF-8\r\n"
        f"DataFile={path.stem}.eeg\r\n\r\n[Marker Infos]\r\n" + "\r\n".join(lines) + "\r\n"
    )
    return path


def segment(first, when):
    return ("New Segment", "", first, 1, when)


@pytest.mark.parametrize("rate", [200, 500])
def test_a_pause_is_a_gap_at_the_right_second(eeg, tmp_path, rate) -> None:
    """Each segment is resampled by itself, as mne does it for a file of its own, and begins at the second of its
    date; events after a pause move with it."""
    true = eeg(60)(rate)
    firsts, starts = [0, 20 * rate, 45 * rate], [0.0, 30.5, 300.0]
    markers = [segment(first, date(start)) for first, start in zip(firsts, starts, strict=True)]
    markers += [("Comment", "LPD", 22 * rate, 10 * rate, ""), ("Comment", "GPD", 19 * rate, 2 * rate, "")]
    path = write(tmp_path / "übung.vhdr", true, rate, markers)
    raw = mne.io.read_raw_brainvision(path, preload=True, verbose="error")
    with opened(path) as source:
        signal = Signal(source, SignalOptions())
        assert [(part.start_s, part.length_s) for part in source.stretches] == [(0, 20), (30.5, 25), (300, 15)]
        assert {(event.text, event.start_s, event.end_s) for event in source.events} == {
            ("Comment/LPD", 32.5, 42.5), ("Comment/GPD", 19.0, 31.5)
        }  # fmt: skip
        found = signal.read(0, signal.num_samples)
        assert signal.length_s == 315
    recorded = np.zeros(signal.num_samples, bool)
    for first, last, start in zip(firsts, [*firsts[1:], 60 * rate], starts, strict=True):
        part = raw.copy().crop(first / rate, (last - 1) / rate)
        if rate != 200:
            part.resample(200, method="polyphase", pad="reflect", verbose="error")
        place = slice(round(start * 200), round(start * 200) + part.n_times)
        np.testing.assert_allclose(found[:, place], part.get_data() * 1e6, rtol=1e-5, atol=1e-3)
        recorded[place] = True
    np.testing.assert_array_equal(np.isnan(found).all(axis=0), ~recorded)


def test_the_report_counts_the_pauses(eeg, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    markers = [segment(0, date(0)), segment(6000, date(40)), ("Comment", "other", 0, 12_000, "")]
    path = write(data / "a.vhdr", eeg(60)(200), 200, markers)
    (data / "dataset.yaml").write_text("name: lab\nclasses: [calm, x]\nlabels: {Comment/other: calm}\n")
    words = ["--data", data, "--out", tmp_path / "out", "--patient", "file", "--pictures", 0]
    assert main(["import", *map(str, words)]) == 0
    (one,) = json.loads((tmp_path / "out/import_report.json").read_text())["recordings"]
    assert (one["gaps"], one["gaps_s"], one["length_s"], one["num_rows"]) == (1, 10, 70, 6)
    assert "paused 1 times, by the dates of its markers" in one["assumed"]
    write(path, eeg(60)(200), 200, [segment(0, date(0)), *markers[2:]])  # other markers: imported again
    assert main(["import", *map(str, words)]) == 0
    (one,) = json.loads((tmp_path / "out/import_report.json").read_text())["recordings"]
    assert (one["gaps"], one["length_s"], one["num_unknown_texts"]) == (0, 60, 0)


@pytest.mark.parametrize(
    ("markers", "starts"),
    [
        ([], [0]),
        ([segment(0, "")], [0]),
        ([segment(0, date(0)), segment(0, date(1))], [0]),  # two at one sample: recorded from the last one
        ([segment(0, date(0)), segment(12_000, date(90))], [0]),  # none was recorded after it
        ([segment(0, date(0)), segment(6000, date(29.95))], [0, 30]),  # two clocks
        ([segment(0, date(0)), segment(6000, date(30.02))], [0, 30.02]),
        ([segment(0, date(0)), segment(0, date(1)), segment(6000, date(32))], [0, 31]),
    ],
)
def test_segments(eeg, tmp_path, markers, starts) -> None:
    with opened(write(tmp_path / "a.vhdr", eeg(60)(200), 200, markers)) as source:
        assert [part.start_s for part in source.stretches] == pytest.approx(starts)
        assert sum(part.length_s for part in source.stretches) == pytest.approx(60)


def test_a_missing_marker_file_is_noted(eeg, tmp_path) -> None:
    path = write(tmp_path / "a.vhdr", eeg(20)(200), 200, [segment(0, date(0))])
    for present in (True, False):
        with opened(path) as source:
            assert source.notes == (() if present else ("no marker file: pauses and events are not known",))
        path.with_suffix(".vmrk").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        ([segment(0, date(0)), segment(6000, "")], "paused 1 times, and 1 of its 2 segments have no date"),
        ([segment(0, date(0)), segment(6000, "0" * 20)], "paused 1 times, and 1 of its 2 segments have no date"),
        ([segment(6000, date(0))], "paused 1 times, and 1 of its 2 segments have no date (marker 'New Segment' at "
         "sample 1), so the lengths of the pauses are unknown; export the segments as files"),
        ([segment(0, date(0)), segment(6000, date(29))], "segment 2 begins at 29 s by its date, before segment 1 ends "
         "(30 s); expected times that rise"),
    ],
)  # fmt: skip
def test_pauses_of_unknown_length_are_refused(eeg, tmp_path, markers, message) -> None:
    with pytest.raises(UserError) as error, opened(write(tmp_path / "a.vhdr", eeg(60)(200), 200, markers)):
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)
