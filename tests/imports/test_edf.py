"""EDF and BDF files that edfio writes, read back: samples, rates, units, gaps, times."""

import datetime

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.imports.open_recording import opened
from hms_dist.imports.signal import Signal, SignalOptions
from hms_dist.imports.source import Event

BIPOLAR = (
    "FP1-F7 F7-T7 T7-P7 P7-O1 FP1-F3 F3-C3 C3-P3 P3-O1 FP2-F4 F4-C4 C4-P4 P4-O2 FP2-F8 F8-T8 T8-P8 P8-O2 FZ-CZ CZ-PZ"
)


def read(path, first=None, last=None, **options):
    """The whole recording [20, samples], or a part."""
    with opened(path) as source:
        signal = Signal(source, SignalOptions(**options))
        return signal.read(0 if first is None else first, signal.num_samples if last is None else last)


def error_of(found, true, margin=200):
    middle = slice(margin, true.shape[1] - margin)
    return np.sqrt(((found - true)[:, middle] ** 2).mean(1) / (true[:, middle] ** 2).mean(1)).max()


@pytest.mark.parametrize(
    ("dimension", "kind"), [*((unit, "edf") for unit in ("uV", "mV", "V", "nV")), ("uV", "bdf"), ("mV", "bdf")]
)
def test_at_200_hz_samples_come_back_within_half_a_step(eeg, files, tmp_path, dimension, kind) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / f"a.{kind}", true, dimension=dimension, kind=kind)
    assert np.abs(read(path) - true).max() <= files.step_uv / 2 * 1.01


def test_a_reversed_physical_range_inverts(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", true, inverted=True)
    assert np.abs(read(path) - true).max() <= files.step_uv / 2 * 1.01


@pytest.mark.parametrize("rate", [100, 128, 250, 256, 400, 500, 512, 1000, 1024])
def test_at_every_rate_0_5_to_40_hz_come_back(eeg, files, tmp_path, rate) -> None:
    signal = eeg(12)
    path = files.write(tmp_path / "a.edf", signal(rate), rate)
    assert error_of(read(path), signal(200)) < 0.005


def test_records_of_any_length(eeg, files, tmp_path) -> None:
    signal = eeg(12)
    for record_s in (0.25, 0.5, 3, 12):
        path = files.write(tmp_path / f"{record_s}.edf", signal(256), 256, record_s=record_s)
        assert error_of(read(path), signal(200)) < 0.005


def test_parts_equal_the_whole_and_outside_is_empty(eeg, files, tmp_path) -> None:
    path = files.write(tmp_path / "a.edf", eeg(10)(256), 256)
    whole = read(path)
    np.testing.assert_allclose(read(path, 333, 1501), whole[:, 333:1501], atol=1e-4)
    around = read(path, -100, 2100)
    assert np.isnan(around[:, :100]).all()
    assert np.isnan(around[:, 2100:]).all()
    np.testing.assert_allclose(around[:, 100:2100], whole, atol=1e-4)
    assert np.isnan(read(path, -500, -100)).all()


def test_plain_edf_without_annotations(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", true, annotations=None)
    assert np.abs(read(path) - true).max() <= files.step_uv / 2 * 1.01


def test_bipolar_files(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    named = {name.upper(): values for name, values in zip(CHANNELS, true, strict=True)}
    named |= {"T7": named["T3"], "T8": named["T4"], "P7": named["T5"], "P8": named["T6"]}
    labels = BIPOLAR.split()
    signals = [named[label.split("-")[0]] - named[label.split("-")[1]] for label in labels]
    path = files.write(tmp_path / "a.edf", signals, labels=labels)
    found = read(path)
    for label in labels:
        one, other = (CHANNELS.index({"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}.get(n, n.capitalize()))
                      for n in label.split("-"))  # fmt: skip
        assert np.abs(found[one] - found[other] - true[one] + true[other]).max() < 2 * files.step_uv


def test_references(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    signals = [*true, true[0] * 0.1, true[1] * 0.1]
    path = files.write(tmp_path / "a.edf", signals, labels=(*files.labels, "EEG A1-REF", "EEG A2-REF"))
    average, linked = read(path, reference="average"), read(path, reference="linked_ears")
    assert np.abs(average[:19] - (true[:19] - true[:19].mean(0))).max() < files.step_uv
    assert np.abs(linked[:19] - (true[:19] - 0.05 * (true[0] + true[1]))).max() < files.step_uv * 1.1
    assert np.abs(average[19] - true[19]).max() <= files.step_uv / 2 * 1.01


def test_mixed_rates(eeg, files, tmp_path) -> None:
    signal = eeg(12)
    rates = [256] * 10 + [512] * 9 + [128]
    made = {rate: signal(rate) for rate in set(rates)}
    signals = [made[rate][number] for number, rate in enumerate(rates)]
    path = files.write(tmp_path / "a.edf", [*signals, np.arange(12.0)], [*rates, 1], (*files.labels, "SpO2"))
    assert error_of(read(path), signal(200)) < 0.005
    with opened(path) as source:
        notes = Signal(source, SignalOptions()).notes
    assert "mixed rates: 128, 256, 512 Hz" in notes
    assert "128 Hz: nothing above 55 Hz" in notes


@pytest.mark.parametrize("rate", [200, 256, 500])
def test_gaps_are_at_the_right_second(eeg, files, tmp_path, rate) -> None:
    """Records of 2 s at 0, 2, 4 | 16, 18 | 41.5: the signal continues in between, unseen."""
    onsets, length_s = (0, 2, 4, 16, 18, 41.5), 43.5
    signal = eeg(length_s)
    parts = [signal(rate)[:, round(at * rate) : round(at * rate) + 2 * rate] for at in onsets]
    path = files.write(
        tmp_path / "a.edf", np.concatenate(parts, axis=1), rate, record_s=2, annotations=[(1, None, "x" * 20)]
    )
    found, true = read(files.with_gaps(path, onsets)), signal(200)
    assert found.shape[1] == length_s * 200
    recorded = np.zeros(round(length_s * 200), bool)
    for at in onsets:
        recorded[round(at * 200) : round((at + 2) * 200)] = True
    np.testing.assert_array_equal(np.isfinite(found), np.broadcast_to(recorded, found.shape))
    for first, last in ((0, 6), (16, 20), (41.5, 43.5)):
        part = slice(round(first * 200), round(last * 200))
        assert error_of(found[:, part], true[:, part], margin=60) < 0.02
        # Continued by reflection: no step at the edges, and nothing from beyond the gap.
        assert np.abs(found[:, part] - true[:, part]).max() < 20
    assert np.abs(true).max() > 40


def test_edf_d_without_gaps(eeg, files, tmp_path) -> None:
    signal = eeg(12)
    path = files.write(tmp_path / "a.edf", signal(256), 256, record_s=2, annotations=[(1, None, "x" * 20)])
    whole = read(path)
    np.testing.assert_array_equal(read(files.with_gaps(path, range(0, 12, 2))), whole)


def test_annotations_count_from_the_first_sample(eeg, files, tmp_path) -> None:
    marks = [(1.25, 3.0, "seizure"), (0.5, None, "Augen zu \u8111"), (11.0, 0.0, "end")]
    path = files.write(
        tmp_path / "a.edf", eeg(12)(200), annotations=marks, starttime=datetime.time(22, 59, 58, 750_000)
    )
    with opened(path) as source:
        assert source.events == (
            Event(0.5, 0.5, "Augen zu \u8111"), Event(1.25, 4.25, "seizure"), Event(11.0, 11.0, "end")
        )  # fmt: skip


def test_annotations_of_bdf(eeg, files, tmp_path) -> None:
    path = files.write(tmp_path / "a.bdf", eeg(6)(200), annotations=[(2, 1.5, "burst")], kind="bdf")
    with opened(path) as source:
        assert source.events == (Event(2, 3.5, "burst"),)


def test_labels_in_other_alphabets_are_ignored(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", [*true, true[0], true[0]], labels=(*files.labels, "extra one", "extra two"))
    content = path.read_bytes()
    content = content.replace(b"extra one", "\u8111\u7535\u56fe".encode()).replace(b"extra two", b"\xe9lectrod\xe9")
    path.write_bytes(content.replace(b"uV      ", b"\xb5V      ", 3).replace(b"uV      ", "µV     ".encode(), 3))
    assert np.abs(read(path) - true).max() <= files.step_uv / 2 * 1.01


def test_a_unit_that_the_file_lacks(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", true, dimension="")
    with pytest.raises(UserError, match=r"a.edf: channel 'EEG FP1-REF': expected unit uV, mV or V, found ''"):
        read(path)
    assert np.abs(read(path, unit="uV") - true).max() <= files.step_uv / 2 * 1.01


def test_an_ekg_in_another_unit_is_read_as_it_is(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", true)
    content = bytearray(path.read_bytes())
    num_signals = int(content[252:256])
    place = 256 + 96 * num_signals + 8 * files.labels.index("ECG EKG")
    content[place : place + 8] = b"n/a     "
    path.write_bytes(content)
    assert np.abs(read(path) - true).max() <= files.step_uv / 2 * 1.01


def test_a_truncated_file_is_refused_or_kept(eeg, files, tmp_path) -> None:
    true = eeg(8)(200)
    path = files.write(tmp_path / "a.edf", true)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"truncated: the header announces 8 records, the file holds 7\.4"):
        read(path)
    with opened(path, "keep") as source:
        signal = Signal(source, SignalOptions())
        assert signal.length_s == 7
        assert "truncated: 7 of 8 records" in signal.notes
        assert np.abs(signal.read(0, 1400) - true[:, :1400]).max() <= files.step_uv / 2 * 1.01


def test_a_recording_that_was_not_closed(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", true)
    content = bytearray(path.read_bytes())
    content[236:244] = b"-1      "
    path.write_bytes(content)
    assert read(path).shape[1] == 800


def test_missing_electrodes(eeg, files, tmp_path) -> None:
    true = eeg(4)(200)
    path = files.write(tmp_path / "a.edf", true[3:19], labels=files.labels[3:19])
    found = read(path, missing="nan")
    assert np.isnan(found[[0, 1, 2, 19]]).all()
    assert np.abs(found[3:19] - true[3:19]).max() <= files.step_uv / 2 * 1.01
