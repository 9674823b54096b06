"""The page of an import in a real browser: quiet, without a request, readable on a phone and in the dark."""

import pytest

from hms_dist.cli import main

pytestmark = pytest.mark.browser
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def page(tmp_path_factory, recordings):
    """The page of two EDF files, one of them bipolar and in volts, and of one that was rejected."""
    import edfio
    import numpy as np
    import pandas as pd

    from hms_dist.core.signal_format import CHANNELS
    from hms_dist.signals.montage import TRACE_PAIRS

    folder = tmp_path_factory.mktemp("import")
    eeg = pd.read_parquet(next((recordings / "train_eegs").glob("*.parquet")))[list(CHANNELS)].head(10_000)
    eeg = eeg.fillna(0.0).clip(-900, 900)
    bipolar = {"-".join(pair): eeg[pair[0]] - eeg[pair[1]] for pair in TRACE_PAIRS if len(pair) == 2}
    for name, signals, scale, unit in (("a", eeg.items(), 1, "uV"), ("b", bipolar.items(), 1e-6, "V")):
        made = [
            edfio.EdfSignal(np.asarray(values) * scale, 200, label=label, physical_dimension=unit)
            for label, values in signals
        ]
        note = edfio.EdfAnnotation(0, 50, "LPD" if name == "a" else "GPD")
        edfio.Edf(made, annotations=[note]).write(folder / f"{name}.edf")
    (folder / "c.edf").write_bytes(b"not a recording")
    words = ["--data", folder, "--out", folder / "out", "--patient", "file", "--on_error", "skip"]
    assert main(["import", *map(str, words)]) == 0
    return folder / "out/import_report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens(browser, page, width, dark) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [f"file://{page}"]
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 1000)") == [True] * 6


def test_it_can_be_used_without_seeing_it(browser, page) -> None:
    browser.open(page, width=1280)
    assert browser.value("[...document.images].every(i => i.alt.length > 20)")
    assert browser.value("[...document.querySelectorAll('table')].every(t => t.caption && t.tHead)")
    assert browser.value("[...document.querySelectorAll('tbody tr')].every(r => r.cells[0].scope === 'row')")
    assert browser.value("document.documentElement.lang") == "en"


def test_what_was_found_is_listed(browser, page) -> None:
    browser.open(page, width=1280)
    text = browser.value("document.body.innerText")
    for part in ("2 recordings of 2 patients", "bipolar", "referential", "not an EDF or BDF file", "set to 0"):
        assert part in text
