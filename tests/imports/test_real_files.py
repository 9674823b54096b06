"""Genuine files of several laboratories, and the real EEG written into files of other rates, names and units."""

import json

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.imports.open_recording import opened
from hms_dist.imports.signal import Signal, SignalOptions

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def genuine(repository):
    folder = repository.parent / "shared/data/eeg_files"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/eeg_files beside the checkout")
    return folder


@pytest.fixture(scope="module")
def real_eegs(repository):
    """Real EEGs [20, 10,000], microvolts; gaps as 0."""
    folder = repository.parent / "shared/data/iiic/train_eegs"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/iiic beside the checkout")
    paths = sorted(folder.glob("*.parquet"))
    return [np.nan_to_num(pd.read_parquet(path)[list(CHANNELS)].to_numpy(float).T) for path in paths]


@pytest.mark.parametrize(
    ("name", "rate", "num_channels", "missing", "bipolar"),
    [
        ("aaaaaaac_s001_t000_sample.edf", 250, 33, (), False),
        ("PN00-5_sample.edf", 512, 35, (), False),
        ("P_ID10_r5_sample.edf", 250, 26, (), False),
        ("chb01_01_sample.edf", 256, 23, ("EKG",), True),
        ("GPD_sample2.mat", 200, 20, (), False),
        ("LRDA_sample2.mat", 200, 20, (), False),
    ],
)
def test_genuine_files_are_read(genuine, name, rate, num_channels, missing, bipolar) -> None:
    with opened(genuine / name) as source:
        signal = Signal(source, SignalOptions())
        eeg = signal.read(0, signal.num_samples)
        assert len(source.channels) == num_channels
    assert signal.rates_hz == [rate]
    assert signal.montage.missing == missing
    assert signal.montage.is_bipolar == bipolar
    assert np.isfinite(eeg[:19]).all()
    assert np.median(abs(eeg[:19])) > 1


def test_brainvision(genuine) -> None:
    mne = pytest.importorskip("mne", reason="mne is not installed")
    with opened(genuine / "test.vhdr") as source:
        signal = Signal(source, SignalOptions(missing="nan"))
        eeg = signal.read(0, signal.num_samples)
        texts = {event.text for event in source.events}
    assert signal.montage.missing == ("T3", "T4", "EKG")
    assert "Stimulus/S255" in texts
    raw = mne.io.read_raw_brainvision(genuine / "test.vhdr", preload=True, verbose="error").pick(["FP1", "P7"])
    expected = raw.resample(200, method="polyphase", pad="reflect", verbose="error").get_data() * 1e6
    np.testing.assert_allclose(eeg[[CHANNELS.index("Fp1"), CHANNELS.index("T5")]], expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short_psg.edf", "found 'EEG Fpz-Cz', 'EEG Pz-Oz', 'EOG horizontal'"),
        ("SC4001EC-Hypnogram.edf", "expected signals, found annotations alone"),
        ("duplicate_channel_labels.edf", "found 'EEG F1-Ref', 'EEG F2-Ref', 'EEG F1-Ref'"),
        ("test_uneven_samp.edf", "found '3Hz [+]5/-5 V'"),
    ],
)
def test_genuine_files_without_a_scalp_are_refused(genuine, name, message) -> None:
    with pytest.raises(UserError, match=f"{name}: .*{message}"), opened(genuine / name) as source:
        Signal(source, SignalOptions())


def test_a_matlab_segment_is_imported_as_it_is(genuine, tmp_path, read_eegs) -> None:
    from scipy.io import loadmat

    (tmp_path / "labels.csv").write_text("file,time_s,label,patient\nGPD_sample2,25,GPD,a\nLRDA_sample2,25,LRDA,b\n")
    for name in ("GPD", "LRDA"):
        (tmp_path / f"{name}_sample2.mat").symlink_to(genuine / f"{name}_sample2.mat")
    words = ["--data", tmp_path, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out", "--pictures", 1]
    assert main(["import", *map(str, words)]) == 0
    eegs = read_eegs(tmp_path / "out")
    for number, name in ((1000, "GPD"), (2000, "LRDA")):
        expected = loadmat(genuine / f"{name}_sample2.mat")["seg"].astype(np.float32)
        np.testing.assert_array_equal(eegs[number], expected)


@pytest.mark.parametrize("rate", [250, 256, 500, 512, 1000, 1024])
def test_real_eeg_there_and_back(real_eegs, files, tmp_path, rate) -> None:
    """Through 16 bits at another rate: 0.5 to 40 Hz within half a percent."""
    from scipy.signal import resample_poly

    hertz = np.fft.rfftfreq(10_000, 1 / 200)
    band = (hertz >= 0.5) & (hertz <= 40)  # one recording has mains of thirty times its EEG
    window = np.hanning(10_000)
    rounding = files.step_uv / 12**0.5 * np.linalg.norm(window) * band.sum() ** 0.5
    for true in real_eegs[::4]:
        scaled = true * (1000 / np.maximum(abs(true).max(axis=1, keepdims=True), 1))  # within the range of 16 bits
        there = resample_poly(scaled, rate, 200, axis=1, padtype="line")
        path = files.write(tmp_path / "a.edf", there, rate)
        with opened(path) as source:
            signal = Signal(source, SignalOptions())
            back = signal.read(0, signal.num_samples)
        one, two = (np.fft.rfft(values * window) for values in (scaled, back.astype(float)))
        error, size, mains = (
            np.linalg.norm(part, axis=1) for part in ((one - two)[:, band], one[:, band], one[:, ~band])
        )
        assert (error <= 0.005 * size + rounding + 2e-4 * mains).all()
        assert (size > 10 * rounding).sum() > 15


def test_a_report_of_genuine_files(genuine, tmp_path) -> None:
    """Two-second samples of three labs: everything that is found is listed."""
    for name in ("aaaaaaac_s001_t000_sample.edf", "PN00-5_sample.edf", "chb01_01_sample.edf"):
        (tmp_path / name).symlink_to(genuine / name)
    words = ["--data", tmp_path, "--labels", "none", "--out", tmp_path / "out", "--patient", "file"]
    assert main(["import", *map(str, words)]) == 0
    found = json.loads((tmp_path / "out/import_report.json").read_text())["recordings"]
    assert [one["montage"] for one in found] == ["referential", "referential", "bipolar"]
    assert any("chains miss each other" in line for line in found[2]["warnings"])  # its samples are random numbers
