"""Pipes, folders and senseless values where a run's files are expected, and configurations that name foreign code."""

import json
import os
import re
import stat
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hms_dist.canvas.options import CanvasConfig
from hms_dist.cli import main
from hms_dist.config.load import from_dict, load
from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import open_file, parse_json, read_bytes
from hms_dist.grid.grid import Grid
from hms_dist.jobs.lease import Owner, is_held, read_owner
from hms_dist.model.weights import read_weights
from hms_dist.predict.stack import Stack
from hms_dist.rendering.render import Render
from hms_dist.results.lineage import read_sources
from hms_dist.results.predictions import read_predictions
from hms_dist.search.study import Search
from hms_dist.train.settings import TrainConfig


@pytest.fixture
def runs(tmp_path):
    """Two runs of nothing but what status reads; the second is corrupted by the tests."""
    for name in ("good", "corrupted"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("epochs: 2\n")
        (folder / "status.json").write_text('{"state": "stopped"}')
        (folder / "metrics.jsonl").write_text('{"epoch": 0, "step": 3, "loss": 1.5}\n')
        (folder / "train.log").write_text("begun\n")
    return tmp_path / "runs"


def make(kind, path):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "link to itself":
        path.symlink_to(path.name)
    else:
        path.symlink_to("/dev/zero")


KINDS = ("pipe", "folder", "socket", "link to itself", "device")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "status.json", "environment.json", "config.yaml", "stages.yaml", ".claim", "train.log"]
)
def test_status_shows_the_other_runs(runs, name, kind, capsys):
    make(kind, runs / "corrupted" / name)
    assert main(["status", str(runs)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^good +stopped +1/2 +3 ", printed, re.MULTILINE)
    assert re.search(r"^corrupted ", printed, re.MULTILINE)


@pytest.mark.parametrize("content", ['{"pid": "1x"}', "[" * 9999, "7", '{"pid": -1}', "\xff", '{"host": NaN}'])
def test_a_damaged_lease_is_held_by_nobody_known(runs, content, capsys):
    whole = {"host": "h", "machine": "m", "pid": 3, "job": "", "nonce": "n", "attempt": 0}
    path = runs / "corrupted/.claim"
    try:
        changed = json.loads(content)
        content = json.dumps({**whole, **changed}) if isinstance(changed, dict) else content
    except (ValueError, RecursionError):
        pass
    path.write_text(content)
    assert read_owner(path) == Owner("an unknown host", "", 0, "", "")
    assert is_held(path)
    assert main(["status", str(runs)]) == 0
    assert "good" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": "a", "step": 3}',
        '{"step": 3}',
        '{"epoch": 1, "step": 4, "val_kl": "x"}',
        '{"epoch": 1, "step": 4, "loss": 1, "data_wait_share": [1, 2]}',
        '{"epoch": 1, "step": 4, "loss": 1, "images_per_s": null}',
        '{"epoch": 1, "step": 4, "loss": 1e999}',
        '{"epoch": 1, "step": 4, "loss": 1' + 400 * "0" + "}",
        "[" * 9999,
        '{"epoch": NaN}',
    ],
)
def test_senseless_metrics_end_the_lines_that_count(runs, line, capsys):
    with (runs / "corrupted/metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    assert main(["status", str(runs)]) == 0
    assert len(re.findall(r" 1/2 +3 ", capsys.readouterr().out)) == 2


def test_names_of_stages_stay_in_the_run(runs, capsys):
    (runs / "corrupted/stages.yaml").write_text("stages: [{name: ../../good}, {name: b}]\n")
    assert main(["status", str(runs)]) == 0
    assert re.search(r"^corrupted +DAMAGED ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_refuses_what_is_not_a_file(tmp_path, kind):
    for read, name in (
        (lambda path: read_bytes(path, 10), "a"),
        (lambda path: open_file(path).close(), "a"),
        (read_weights, "a.safetensors"),
        (read_weights, "a.pth"),
        (read_predictions, "a.parquet"),
        (read_predictions, "a.csv"),
        (read_sources, "a.parquet"),
        (lambda path: load(Render, ["--config", str(path)]), "a.yaml"),
        (lambda path: load(Render, ["--panels", str(path)]), "b.yaml"),
    ):
        path = tmp_path / name
        make(kind, path)
        with pytest.raises((OSError, UserError)) as caught:
            read(path)
        assert str(path) in str(caught.value)
        path.rmdir() if kind == "folder" else path.unlink()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: &a [1]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]\n" for n in range(9)),
         "more than 100000 values"),
        ("a: &a [*a]\n", "recursive|within one another"),
        ("a: " + "[" * 1000, "too deep"),
        ("a: " + "[" * 80 + "]" * 80, "within one another"),
        ("a: " + "9" * 5000, "digits"),
        ("a: !!python/object/apply:os.system [touch hit]", "could not determine a constructor"),
        ("a: !!set {b}", "found set"),
        ("a: !!binary aGVsbG8=", "found bytes"),
        ("? [a]\n: b", "unhashable"),
        ("a: 1\x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_yaml_that_is_deep_long_or_strange_is_one_line(tmp_path, text, fault):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=fault) as caught:
        load(Render, ["--config", str(path)])
    assert str(caught.value).startswith(f"{path}: not valid YAML")
    assert "\n" not in str(caught.value)


def test_a_large_file_of_options_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "YAML_BYTES", 1000)
    (tmp_path / "a.yaml").write_text("#" * 1001)
    with pytest.raises(UserError, match="larger than 1000 bytes"):
        load(Render, ["--config", str(tmp_path / "a.yaml")])
    with pytest.raises(UserError, match="at most 1000 characters"):
        load(Render, ["--data", "x" * 1001])


def test_null_is_no_value_of_an_option_that_needs_one():
    canvas = {"height": 8, "width": 8, "placements": [{"panel": "a", "top": 0, "left": 0, "height": 8, "width": 8}]}
    assert from_dict(CanvasConfig, canvas).placements[0].normalise is None
    canvas["placements"][0]["arrangement"] = None
    with pytest.raises(UserError, match="arrangement: expected a value, found null"):
        from_dict(CanvasConfig, canvas)


def test_files_that_name_each_other_end(tmp_path):
    (tmp_path / "a.yaml").write_text("canvas: a.yaml\n")
    with pytest.raises(UserError, match="unknown option 'canvas'"):
        load(TrainConfig, ["--config", str(tmp_path / "a.yaml")])
    (tmp_path / "l.yaml").write_text("[l.yaml]\n")
    with pytest.raises(UserError, match="names itself"):
        load(TrainConfig, ["--stages", str(tmp_path / "l.yaml")])


EVIL = "{class_path: evilmod.Evil, init_args: {a: 1}}"
FOREIGN = "{class_path: subprocess.Popen, init_args: {args: [touch, IMPORTED]}}"
PLACES = [
    (Render, "panels: {x: %s}"),
    (Render, "panels: SUB"),
    (Render, "panels: {x: SUB}"),
    (Render, "panels: {x: {class_path: Traces, init_args: {signals: %s}}}"),
    (Render, "panels: {x: {class_path: Traces, dict_kwargs: %s}}"),
    (TrainConfig, "canvas: SUB"),
    (TrainConfig, "canvas: {placements: SUB}"),
    (TrainConfig, "canvas: {placements: [SUB]}"),
    (TrainConfig, "canvas: {placements: [{panel: a, normalise: %s}]}"),
    (TrainConfig, "canvas: {placements: [{panel: a, normalise: SUB}]}"),
    (TrainConfig, "augment: SUB"),
    (TrainConfig, "augment: {steps: [%s]}"),
    (TrainConfig, "augment: {steps: SUB}"),
    (TrainConfig, "stages: SUB"),
    (TrainConfig, "stages: [{name: a, optim: %s}]"),
    (TrainConfig, "stages: [{name: a, selection: SUB}]"),
    (TrainConfig, "model: SUB"),
    (TrainConfig, "model: {sliding_window: %s}"),
    (TrainConfig, "optim: SUB"),
    (TrainConfig, "optim: %s"),
    (TrainConfig, "locality: %s"),
    (TrainConfig, "overlay: SUB"),
    (TrainConfig, "storage: {cache: %s}"),
    (Grid, "recipes: SUB"),
    (Grid, "recipes: [{name: a, configs: [x], options: SUB}]"),
    (Grid, "recipes: [{name: a, configs: [x], options: {x: %s}}]"),
    (Grid, "recipes: [{name: a, configs: [x], options: %s}]"),
    (Search, "space: SUB"),
    (Search, "space: {a: %s}"),
    (Search, "options: {a: %s}"),
    (Stack, "model: SUB"),
]


@pytest.mark.parametrize(("cls", "text"), PLACES)
@pytest.mark.parametrize(("way", "spec"), [("file", EVIL), ("words", FOREIGN), ("dict", EVIL)])
def test_no_configuration_imports_foreign_code(tmp_path, monkeypatch, cls, text, spec, way):
    (tmp_path / "evilmod.py").write_text(
        "open('IMPORTED', 'w').close()\nclass Evil:\n    def __init__(self, a=1): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for number, content in enumerate([spec, f"{{x: {spec}}}", f"[{spec}]"]):
        (tmp_path / "sub.yaml").write_text(content)
        options = text.replace("SUB", "sub.yaml").replace("%s", spec)
        (tmp_path / "a.yaml").write_text(options)
        value = yaml.safe_load(options)
        name, inner = next(iter(value.items()))
        words = [f"--{name}", inner if isinstance(inner, str) else json.dumps(inner)]
        with pytest.raises(UserError) as caught:
            from_dict(cls, value) if way == "dict" else load(cls, ["--config", "a.yaml"] if way == "file" else words)
        assert "\n" not in str(caught.value)
        if "SUB" not in text and number:
            break
    assert not (tmp_path / "IMPORTED").exists()
    assert "evilmod" not in sys.modules


def test_options_of_any_kind_are_kept_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"name": "a", "configs": ["x"], "options": {"x": yaml.safe_load(FOREIGN)}}
    grid = load(Grid, ["--shards", "s", "--out", "o", "--recipes", json.dumps([recipe])])
    assert grid.recipes[0].options == recipe["options"]
    assert not (tmp_path / "IMPORTED").exists()


def test_a_nested_file_still_stands_for_options(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "height: 32\nwidth: 64\nplacements:\n"
        "  - &a {panel: traces, resize: area, top: 0, left: 0, height: 16, width: 64}\n  - {<<: *a, top: 16}\n"
    )
    (tmp_path / "t.yaml").write_text("canvas: c.yaml\nepochs: 3\noptim: {lr: 1e-3}\n")
    words = ["--config", str(tmp_path / "t.yaml"), "--shards", "s", "--out", "o"]
    config = load(TrainConfig, [*words, "--epochs=2"])
    assert (config.epochs, config.optim.lr, len(config.canvas.placements)) == (2, 1e-3, 2)
    assert load(TrainConfig, [*words[2:], "--canvas", str(tmp_path / "c.yaml")]).canvas == config.canvas
    assert from_dict(CanvasConfig, yaml.safe_load((tmp_path / "c.yaml").read_text())) == config.canvas


@pytest.mark.parametrize("text", ["[" * 9999, "NaN", "[Infinity]", '{"a":' * 65 + "1" + "}" * 65, "1" * 9999])
def test_json_that_no_writer_gives_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
        parse_json(text)
    assert parse_json('{"a":' * 64 + "1" + "}" * 64)


def test_compressed_parts_of_weights_are_not_expanded(tmp_path):
    import zipfile

    torch.save({"a": torch.zeros(10)}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth")["a"].shape == (10,)
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="compressed parts"):
        read_weights(tmp_path / "b.pth")


def test_a_compressed_table_is_not_expanded(tmp_path):
    frame = pd.DataFrame({"eeg_id": [1], "eeg_sub_id": [0]})
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    with pytest.raises(UserError, match="not UTF-8 text"):
        load_labels(tmp_path / "t.csv.gz")


def load_labels(path):
    from hms_dist.labels.table import read_labels

    return read_labels(path)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--account", "a\ntouch hit"], "account: expected letters"),
        (["--partition", "a b"], "partition: expected letters"),
        (["--train.partition", "$(touch hit)"], "partition: expected letters"),
        (["--environment", '{"A": "x\\nEND\\ntouch hit"}'], "environment: expected one line"),
        (["--environment", '{"A$(touch hit)": "x"}'], "cannot name a variable"),
        (["--setup", '["a\\nEND"]'], "setup: expected one line"),
        (["--options", '["--qos=a\\ntouch hit"]'], "options: expected options of sbatch"),
    ],
)
def test_words_of_a_job_script_cannot_end_its_lines(words, line, capsys):
    assert main(["sbatch", "--job", "pipeline", *words]) == 2
    assert line in capsys.readouterr().err


def test_quoted_words_of_a_job_script_stay_words(tmp_path, capsys):
    assert main(["sbatch", "--job", "train", "--environment", '{"A": "$(touch hit); \'x"}']) == 0
    script = capsys.readouterr().out
    line = next(line for line in script.splitlines() if line.startswith("export A="))
    found = subprocess.run(
        ["bash", "-c", f'{line}\necho "$A"'], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "$(touch hit); 'x\n"
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "", "a\nb", "-x"])
def test_a_recipe_cannot_leave_the_folder_of_runs(name):
    with pytest.raises(UserError, match=r"recipes\.name: expected a name"):
        load(Grid, ["--shards", "s", "--out", "o", "--recipes", json.dumps([{"name": name, "configs": ["x"]}])])


def test_a_formula_in_a_name_is_drawn_literally():
    from hms_dist.canvas.compose import Canvas
    from hms_dist.datasets import HMS
    from hms_dist.report.parts import canvas_parts
    from hms_dist.report.sheet import sheet
    from hms_dist.shards.schema import PanelSpec

    spec = PanelSpec(
        shape=(1, 8, 8), dtype="uint8", codec="npy", axes=("region", "frequency", "time"), unit="$x^$",
        regions=("$x^$",), rows_hz=tuple(range(1, 9)), columns_s=(0.0, 7.0), value_range=(0.0, 1.0),
    )  # fmt: skip
    placement = {"panel": "a", "arrangement": "stacked", "top": 0, "left": 0, "height": 8, "width": 8}
    canvas = Canvas(from_dict(CanvasConfig, {"height": 8, "width": 8, "placements": [placement]}), {"a": spec})
    parts = canvas_parts(canvas, np.zeros((8, 8), np.float32), HMS, {}, flip=False)
    assert sheet(parts, title="$x^$").startswith(b"\x89PNG")
