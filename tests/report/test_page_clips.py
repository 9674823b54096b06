"""Clips of audio in the report: times and boxes are at the places of their seconds and hertz."""

import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from hms_dist.cli import main
from hms_dist.datasets import HMS, Dataset, Submission
from hms_dist.labels.recording_ids import recording_number
from hms_dist.labels.table import sample_key
from hms_dist.recordings.audio import AudioRecording
from hms_dist.report.clip_picture import Annotation, clip_part
from hms_dist.report.page_charts import Curve, Span, timeline_chart
from hms_dist.report.page_clips import Windows, chosen_clips, shown_classes
from hms_dist.report.page_gallery import where_of
from hms_dist.report.sheet import LEFT, NAME_ROWS, TITLE_ROWS, WIDTH, sheet
from hms_dist.report.show import row_parts
from hms_dist.results.lineage import ModelRecord, Source
from hms_dist.results.predictions import prediction_table, read_predictions, write_predictions
from hms_dist.shards.index import open_set
from hms_dist.stream.read.reader import ShardReader

RATE_HZ = 16_000
BIRDS = Dataset(
    name="birds", classes=tuple(f"s{number}" for number in range(12)), target="yes_no", signal="audio", rate_hz=RATE_HZ,
    window_s=2.0, context_s=2.0, annotated_s=0.5, submission=Submission(key="recording_id", pool="max"),
)  # fmt: skip
HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"


def windows(path: Path, names: list[str], values: np.ndarray, seen: tuple[str, ...] = ()) -> Path:
    """Write a table of windows of 2 s, one every second: `values` [clips, windows, classes]."""
    num_windows = values.shape[1]
    ids = pd.DataFrame({"eeg_id": np.repeat([recording_number(name) for name in names], num_windows)})
    ids["eeg_sub_id"] = np.tile(np.arange(num_windows), len(names))
    ids["key"] = [sample_key(*pair) for pair in ids.itertuples(index=False)]
    ids["eeg_label_offset_seconds"] = ids["eeg_sub_id"].astype(float)
    table = prediction_table(ids, None, values.reshape(-1, BIRDS.num_classes), BIRDS)
    record = ModelRecord(
        run="r", weights="w", shards="s", fold=None, num_folds=2, seed=0, dataset="birds",
        patients=frozenset(map(recording_number, seen)),
    )  # fmt: skip
    write_predictions(path, table.sample(frac=1, random_state=0), [Source(model=record)], BIRDS)
    return path


def test_a_box_is_at_the_pixels_of_its_seconds_and_hertz() -> None:
    """Slaney's mel scale, computed here; cyan pixels of the sheet."""
    length_s, box = 20.0, (5.0, 12.5, 800.0, 3000.0)
    silence = AudioRecording(name="a", samples=np.zeros((1, round(length_s * RATE_HZ)), np.float32), rate_hz=RATE_HZ)
    part = clip_part(silence, [Annotation("", True, box)])
    with Image.open(io.BytesIO(sheet([part], title="a"))) as image:
        red, green, blue = np.asarray(image.convert("RGB")).astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red < 60) & (green > 200) & (blue > 200))
    rows, columns = rows[columns < LEFT + WIDTH], columns[columns < LEFT + WIDTH]

    def mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)

    def from_top(hertz: float) -> float:
        share = (mel(hertz) / mel(RATE_HZ / 2) * (128 + 1) - 0.5) / 128
        return TITLE_ROWS + NAME_ROWS + part.height * (1 - share)

    expected = [LEFT + WIDTH * box[0] / length_s, LEFT + WIDTH * box[1] / length_s, from_top(box[3]), from_top(box[2])]
    found = [columns.min(), columns.max(), rows.min(), rows.max()]
    np.testing.assert_allclose(found, expected, atol=2)


def test_a_call_is_inside_its_box(rng: np.random.Generator) -> None:
    time_s = np.arange(8 * RATE_HZ) / RATE_HZ
    call = 0.3 * np.sin(2 * np.pi * 2500 * time_s) * ((time_s > 3) & (time_s < 4.5))
    samples = (call + 0.001 * rng.standard_normal(len(time_s))).astype(np.float32)[None]
    clip = AudioRecording(name="a", samples=samples, rate_hz=RATE_HZ)
    part = clip_part(clip, [Annotation("a", True, (3.0, 4.5, 2200.0, 2800.0))])
    left, right, top, bottom = part.boxes[0]
    rows, columns = np.nonzero(part.pixels > part.pixels.max() - 3)
    assert left - 2 <= columns.min() < left + 3
    assert right - 3 < columns.max() <= right + 2
    assert top <= rows.min() <= rows.max() <= bottom


def test_the_chart_places_windows_and_annotated_seconds() -> None:
    times_s, values = np.array([1.0, 2.0, 9.0]), np.array([0.0, 0.5, 1.0])
    spans = [Span(0, 2.5, 5.0, True, "there"), Span(3, 0.0, 20.0, False, "not there")]
    chart = timeline_chart("t", [Curve("s", 0, times_s, values)], spans, 10.0)
    left, right = 66, 400 - 18
    path = re.search(r'<path class="curve" d="M([^"]+)"', chart)
    assert path is not None
    points = np.array([list(map(float, point.split())) for point in path[1].split("L")])
    np.testing.assert_allclose(points[:, 0], left + (right - left) * times_s / 10, atol=0.06)
    np.testing.assert_allclose(np.diff(points[:, 1]), -100, atol=0.06)
    bars = re.findall(r'class="span ([^"]+)" x="([\d.]+)" y="(\d+)" width="([\d.]+)"', chart)
    assert [bar[0] for bar in bars] == ["c0 d0", "c3 d0 absent"]
    found = np.array([[float(bar[1]), float(bar[3])] for bar in bars])
    np.testing.assert_allclose(found, [[left + 79, 79], [left, right - left]], atol=0.06)
    assert int(bars[1][2]) > int(bars[0][2]), "a lane for each class"


def test_which_clips_and_classes_are_drawn() -> None:
    values = np.zeros((3, 2, 12))
    values[:, :, 7], values[1, 1, 2] = 0.5, 0.9
    table = Windows(
        name="t", dataset=BIRDS, numbers=np.repeat([3, 1, 2], 2), times_s=np.tile([1.0, 2.0], 3),
        values=values.reshape(6, 12), unseen=np.zeros(6, bool),
    )  # fmt: skip
    assert chosen_clips(table, None, 2) == [1, 2]
    assert shown_classes(values[1], [11, 7]) == [2, 7, 0, 1, 3, 11]
    assert shown_classes(values[1], list(range(12))) == [2, 7, 0, 1, 3, 4, 5, 6]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips of 6 s, one of them annotated."""
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    for name in ("0a", "0b"):
        soundfile.write(data / f"train/{name}.flac", np.zeros(6 * RATE_HZ), RATE_HZ)
    (data / "train_tp.csv").write_text(f"{HEADER}0b,11,1,1.5,500,2.5,900\n0b,1,1,4,500,5,900\n")
    (data / "train_fp.csv").write_text(f"{HEADER}0b,2,1,3,1000,3.5,2000\n")
    (data / "dataset.yaml").write_text(
        f"name: birds\nclasses: [{', '.join(BIRDS.classes)}]\ntarget: yes_no\nsignal: audio\nrate_hz: {RATE_HZ}\n"
        "window_s: 2\nannotated_s: 0.5\nsubmission: {key: recording_id, pool: max}\n"
    )
    (tmp_path / "render.yaml").write_text(
        f"panels: {{log_mel: {{class_path: LogMel, init_args: {{rate_hz: {RATE_HZ}, window_s: 2, num_mels: 32}}}}}}\n"
    )
    words = ["--config", tmp_path / "render.yaml", "--data", data, "--out", tmp_path / "set"]
    assert main(["render", *map(str, words)]) == 0
    return tmp_path


def test_boxes_of_rows_are_named_and_dashed_where_the_class_is_absent(clips: Path) -> None:
    manifest, index = open_set(clips / "set")
    reader = ShardReader(clips / "set", manifest, index, ["log_mel"])
    found = {}
    for row in range(len(index)):
        (part,) = row_parts(manifest, index, reader, row)
        assert len(part.boxes) == 1
        found[part.box_names[0]] = (part.dashed[0], where_of(index, row))
    assert found == {
        "s11": (False, "Recording 0b, 1.00 to 3.00 s."),
        "s1": (False, "Recording 0b, 3.50 to 5.50 s."),
        "s2": (True, "Recording 0b, 2.25 to 4.25 s."),
    }


def report(folder: Path, *words: object, code: int = 0) -> str:
    out = folder / "report.html"
    assert main(["report", "--out", str(out), *map(str, words)]) == code
    return out.read_text() if code == 0 else ""


def test_the_page_of_clips(clips: Path, rng: np.random.Generator) -> None:
    values = rng.uniform(0.1, 0.4, (2, 5, 12))
    values[0, 3, 5] = 0.95
    table = windows(clips / "windows.parquet", ["0a", "0b"], values, seen=("0a",))
    page = report(clips, "--windows", table, "--shards", clips / "set", "--data", clips / "data")
    articles = re.findall(r"<article><h3>(\w+), windows.parquet</h3>\n(.*?)</article>", page, re.S)
    assert [name for name, _ in articles] == ["0b", "0a"], "annotated clips come first"
    text = articles[0][1]
    assert "5 windows of 2 s, one every 1 s; 3 annotations. No model behind the table has trained" in text
    assert "no annotations. Not known to be held out" in articles[1][1]
    lines = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr><th scope=\"row.*?</tr>", text)
    ]
    by_class = {line[0]: line[1:] for line in lines}
    for number in (1, 2, 11):
        best = int(values[1, :, number].argmax())
        assert by_class[f"s{number}"][:2] == [f"{values[1, best, number]:.3f}", f"{best + 1} s"]
    assert by_class["s11"][2] == "yes, 1.5 to 2.5 s, 500 to 900 Hz"
    assert by_class["s2"][2] == "no, 3.0 to 3.5 s, 1000 to 2000 Hz"
    assert text.count('class="span') == 3
    picture = re.search(r"data:image/webp;base64,([^\"]+)", text)
    assert picture is not None
    with Image.open(io.BytesIO(base64.b64decode(picture[1]))) as image:
        assert image.width > WIDTH
    assert "a patient is a recording" in page

    (clips / "data/train/0a.flac").write_bytes(b"none")
    (clips / "data/train/0b.flac").unlink()
    page = report(clips, "--windows", table, "--data", clips / "data", "--clips", 1)
    assert "Not shown: the spectrogram: " in page
    assert "0a.flac: not a readable flac or wav file" in page
    page = report(clips, "--windows", table, "--data", clips / "data")
    assert f"{clips / 'data'}: neither train nor test has 0b.flac or .wav; check --data" in page


def test_a_set_of_audio_without_windows_names_the_command(clips: Path) -> None:
    table = windows(clips / "rows.parquet", ["0b"], np.full((1, 3, 12), 0.5))
    page = report(clips, "--predictions", table, "--shards", clips / "set", "--gallery", 0)
    assert "hms-dist predict --recording CLIP writes those of a clip" in page


def test_wrong_tables_of_windows(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = windows(clips / "good.parquet", ["0a"], np.full((1, 2, 12), 0.5))
    plain = read_predictions(good, BIRDS)
    write_predictions(clips / "timeless.parquet", plain.drop(columns="time_s"), (), BIRDS)
    write_predictions(clips / "negative.parquet", plain.assign(time_s=-1.0), (), BIRDS)
    eeg = prediction_table(plain, None, np.full((2, 6), 1 / 6), HMS)
    write_predictions(clips / "eeg.parquet", eeg)
    for words, message in (
        (
            ["timeless.parquet"],
            "timeless.parquet: has no windows of audio (column time_s); expected a table of hms-dist",
        ),
        (["negative.parquet"], "negative.parquet: column time_s: expected seconds, 0 or more; predict again"),
        (["eeg.parquet"], "eeg.parquet: has no windows of audio"),
        (["good.parquet", "eeg.parquet"], "eeg.parquet: predicts the classes of hms"),
        (["good.parquet", "good.parquet"], "windows: one of them is given twice; name each once"),
        (["good.csv"], "windows: expected names ending in .parquet, found good.csv"),
        (["good.parquet", "--clips", "0"], "clips: expected at least 1, found 0"),
        (["gone.parquet"], "gone.parquet: no such file; check the path"),
    ):
        paths = [clips / word if word.endswith(("parquet", "csv")) else word for word in words]
        report(clips, "--windows", *paths, code=2)
        assert message in capsys.readouterr().err
    report(clips, "--predictions", good, "--shards", clips / "set", "--data", clips / "data", code=2)
    assert "data: is for spectrograms of clips; give --windows, or leave it out" in capsys.readouterr().err
