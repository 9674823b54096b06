"""The report in a real browser: quiet, without a request, every picture there, readable on a phone and in the dark."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.datasets import Dataset, write_dataset
from hms_dist.labels.recording_ids import recording_number
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.train.loop import run
from hms_dist.train.settings import TrainConfig

pytestmark = pytest.mark.browser
WIDTHS = (390, 768, 1400)
CONTRAST = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const levels = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground_of = (item) => getComputedStyle(item).backgroundColor;
  const grounds = (item) => item === null ? [] : [...grounds(item.parentElement), ground_of(item)];
  const found = [];
  for (const item of document.querySelectorAll("h1, h2, h3, p, th, td, caption, figcaption, summary, li, svg text")) {
    const style = getComputedStyle(item), ground = levels(grounds(item));
    const [one, other] = [light(levels([style.fill && item.closest("svg") ? style.fill : style.color])), light(ground)];
    found.push((Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05));
  }
  return [Math.min(...found), found.length];
})()
"""
"""The lowest contrast of text with its ground by WCAG 2, and how many pieces of text were measured."""


@pytest.fixture(scope="module")
def report(small_file, shard_set, recordings, tmp_path_factory):
    """The page of two trained runs."""
    folder = tmp_path_factory.mktemp("report")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in (1, 2):
        words = [
            "--config",
            str(small_file),
            "--shards",
            str(shard_set),
            "--out",
            str(folder / f"seed-{seed}-fold-0"),
        ]
        run(load(TrainConfig, [*words, "--seed", str(seed), "--epochs", "1"]))
        AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)
    words = ["--runs", *(str(folder / f"seed-{seed}-fold-0") for seed in (1, 2)), "--shards", str(shard_set)]
    words += ["--truth", str(recordings / "truth.parquet"), "--out", str(folder / "report.html"), "--gallery", "1"]
    assert main(["report", *words]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens(browser, report, width: int, dark: bool) -> None:
    browser.open(report, width=width, dark=dark)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [f"file://{report}"]
    assert browser.value("document.documentElement.scrollWidth") == width
    number = browser.value("document.querySelectorAll('article').length")
    assert number > 2
    images = "[...document.images].map(i => i.complete && i.naturalWidth > 400)"
    assert browser.value(images) == [True] * (3 * number)  # panels, canvas, attribution
    sizes = browser.value("[...document.querySelectorAll('img, svg')].map(i => i.getBoundingClientRect().toJSON())")
    assert len(sizes) > 15
    assert all(size["width"] > 20 and size["height"] > 5 for size in sizes)


@pytest.mark.parametrize("dark", [False, True])
def test_its_text_can_be_read(browser, report, dark: bool) -> None:
    browser.open(report, width=390, dark=dark)
    lowest, number = browser.value(CONTRAST)
    assert number > 300
    assert lowest >= 4.5
    assert browser.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)"
    )
    boxes = "[...document.querySelectorAll('svg[role=img] text')].map(t => t.getBoundingClientRect().height)"
    assert min(browser.value(boxes)) > 9


def test_votes_and_predictions_fit_a_phone(browser, report) -> None:
    browser.open(report, width=390)
    rooms = browser.value("[...document.querySelectorAll('article .wide')].map(w => [w.scrollWidth, w.clientWidth])")
    assert len(rooms) > 2
    assert all(needed <= there for needed, there in rooms)


def test_names_of_rows_stay_on_one_line_on_a_phone(browser, report) -> None:
    browser.open(report, width=390)
    names = "[...document.querySelectorAll('.wide tbody th')].filter(t => !t.textContent.includes(','))"
    text = (
        "t => { const r = document.createRange(); r.selectNodeContents(t); return r.getBoundingClientRect().height; }"
    )
    heights = browser.value(f"{names}.map({text})")
    assert len(heights) > 10
    assert max(heights) < 25


def test_headings_are_aligned_with_their_columns(browser, report) -> None:
    browser.open(report, width=1400)
    sides = browser.value("""[...document.querySelectorAll('table')].flatMap(t =>
        [...t.tBodies[0].rows].flatMap(r => [...r.cells].map((cell, column) =>
            [t.caption.textContent, column, t.tHead.rows[0].cells[column], cell].map(i =>
                i instanceof Element ? getComputedStyle(i).textAlign : i))))""")
    assert len(sides) > 100
    assert [(caption, column) for caption, column, head, cell in sides if head != cell] == []
    assert {cell for caption, _, _, cell in sides if caption == "Data set"} == {"left"}


def test_charts_keep_their_words_inside(browser, report) -> None:
    browser.open(report, width=1280)
    outside = """[...document.querySelectorAll('svg[role=img] text')].filter(t => {
        const [box, frame] = [t, t.closest('svg')].map(i => i.getBoundingClientRect());
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
    }).map(t => t.textContent)"""
    assert browser.value(outside) == []


def test_it_can_be_used_without_seeing_it(browser, report) -> None:
    browser.open(report, width=1280)
    assert browser.value("[...document.images].every(i => i.alt.length > 20)")
    assert browser.value("[...document.querySelectorAll('svg')].every(s => s.ariaHidden || s.ariaLabel.length > 10)")
    assert browser.value("[...document.querySelectorAll('table')].every(t => t.caption && t.tHead)")
    assert browser.value("[...document.querySelectorAll('th button, select')].every(b => b.tabIndex === 0)")
    assert browser.value("[...document.querySelectorAll('tbody tr')].every(r => r.cells[0].scope === 'row')")
    assert browser.value("document.documentElement.lang") == "en"
    assert browser.value(
        "[...document.querySelectorAll('section')].every(s => s.querySelector('h2') && s.querySelector('p'))"
    )


def column(browser, caption: str, number: int) -> list[str]:
    """Texts of a column of the table with this caption, from the top."""
    return browser.value(
        f"[...[...document.querySelectorAll('table')].find(t => t.caption.textContent === '{caption}')"
        f".tBodies[0].rows].map(r => r.cells[{number}].textContent)"
    )


def test_tables_are_sorted_by_a_click(browser, report) -> None:
    browser.open(report, width=1400)
    caption, place = "Rows by class", 1
    before = column(browser, caption, place)
    head = f"[...document.querySelectorAll('table')].find(t => t.caption.textContent === '{caption}').tHead"
    for order in ("ascending", "descending", "ascending"):
        browser.value(f"{head}.rows[0].cells[{place}].querySelector('button').click()")
        found = [int(text) for text in column(browser, caption, place)]
        assert found == sorted(map(int, before), reverse=order == "descending")
        assert browser.value(f"{head}.rows[0].cells[{place}].getAttribute('aria-sort')") == order
    browser.value(f"{head}.rows[0].cells[0].querySelector('button').click()")
    assert column(browser, caption, 0) == sorted(column(browser, caption, 0))
    assert browser.value(f"{head}.querySelectorAll('[aria-sort]').length") == 1
    assert browser.complaints() == []


def test_the_gallery_is_filtered_by_class_and_by_error(browser, report) -> None:
    browser.open(report, width=1400)
    every = browser.value("[...document.querySelectorAll('article')].map(a => ({...a.dataset}))")
    assert browser.value("document.querySelector('.filters').hidden") is False
    shown = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight > 0).map(a => ({...a.dataset}))"
    of_class = every[0]["classes"]
    for of, error in (("", ""), (of_class, ""), ("", "worst"), ("", "wrong"), ("", "right"), (of_class, "best")):
        browser.value(
            f"(() => {{ const form = document.querySelector('.filters'); form.elements.class.value = '{of}';"
            f"form.elements.error.value = '{error}'; form.dispatchEvent(new Event('change')); }})()"
        )
        expected = [
            one for one in every
            if of in ("", one["classes"]) and error in ("", one["kind"], one["right"])
        ]  # fmt: skip
        assert browser.value(shown) == expected, (of, error)
        assert browser.value("document.querySelector('output').value") == f"{len(expected)} of {len(every)} rows"


def test_nothing_is_cut_off(browser, report) -> None:
    """Whatever is wider than the window scrolls inside its own region."""
    for width in WIDTHS:
        browser.open(report, width=width)
        outside = """[...document.querySelectorAll('main *')].filter(item => {
            const box = item.getBoundingClientRect();
            return box.right > innerWidth + 1 && item.closest('.wide, .picture') === null && box.width > 0;
        }).map(item => item.outerHTML.slice(0, 80))"""
        assert browser.value(outside) == []
        hidden = (
            "[...document.querySelectorAll('.wide, .picture')].every(w => getComputedStyle(w).overflowX === 'auto')"
        )
        assert browser.value(hidden)


def test_a_script_from_elsewhere_does_not_run(browser, report, tmp_path) -> None:
    page = tmp_path / "report.html"
    text = report.read_text().replace("</body>", "<script>window.ran = 1</script></body>")
    page.write_text(text.replace("<h1>", "<h1 onclick='window.ran = 1'>"))
    browser.open(page, width=1400)
    browser.value("document.querySelector('h1').click()")
    assert browser.value("window.ran === undefined")


@pytest.fixture(scope="module")
def clips_page(tmp_path_factory):
    """The page of a clip of audio with annotations, spectrogram and windows."""
    folder = tmp_path_factory.mktemp("clips")
    clip = folder / "data/train/0a.flac"
    clip.parent.mkdir(parents=True)
    soundfile.write(clip, np.zeros(12 * 8000), 8000)
    header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    (folder / "data/train_tp.csv").write_text(f"{header}0a,1,1,3,500,4.5,900\n0a,7,1,11,500,11.9,900\n")
    (folder / "data/train_fp.csv").write_text(f"{header}0a,2,1,3,1000,3.5,2000\n")
    birds = Dataset(
        name="birds", classes=tuple(f"species_{number}" for number in range(8)), target="yes_no",
        signal="audio", rate_hz=8000, window_s=2.0, context_s=2.0, annotated_s=1.0,
    )  # fmt: skip
    write_dataset(folder / "data", birds)
    panel = "{class_path: LogMel, init_args: {rate_hz: 8000, window_s: 2, num_mels: 16}}"
    (folder / "render.yaml").write_text(f"panels: {{log_mel: {panel}}}\n")
    words = ["--config", folder / "render.yaml", "--data", folder / "data", "--out", folder / "set"]
    assert main(["render", *map(str, words)]) == 0
    ids = pd.DataFrame({"eeg_id": recording_number("0a"), "eeg_sub_id": range(11)})
    ids = ids.assign(key=[f"{eeg}-{sub}" for eeg, sub in ids.to_numpy()], time_s=ids["eeg_sub_id"] + 1.0)
    values = np.linspace(0, 1, 88).reshape(11, 8)
    write_predictions(folder / "windows.parquet", prediction_table(ids, None, values, birds), (), birds)
    words = ["--windows", folder / "windows.parquet", "--shards", folder / "set", "--data", folder / "data"]
    assert main(["report", *map(str, words), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_clips_over_time_open_at_any_width(browser, clips_page, width: int, dark: bool) -> None:
    browser.open(clips_page, width=width, dark=dark)
    assert browser.complaints() == []
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 400)") == [True]
    assert browser.value(CONTRAST)[0] >= 4.5
    inside = """(() => {
        const frame = document.querySelector('.timeline svg').getBoundingClientRect();
        return [...document.querySelectorAll('.timeline svg text, .timeline .span')].map(i => {
            const box = i.getBoundingClientRect();
            return [box.left - frame.left, frame.right - box.right, box.top - frame.top, frame.bottom - box.bottom];
        }).flat();
    })()"""
    rooms = browser.value(inside)
    assert len(rooms) > 4 * 10
    assert min(rooms) > -1
    fits = "[...document.querySelectorAll('.timeline .wide')].map(w => w.scrollWidth - w.clientWidth)"
    assert browser.value(fits) == [0]
