"""The scripts of examples/ run, and are short."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Runs a script as `python examples/NAME.py WORDS` does; its variables."""

    def run(name, *words):
        path = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        return runpy.run_path(str(path), run_name="__main__")

    return run


def test_they_are_short_and_all_of_them_are_run_here():
    scripts = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert all(len(path.read_text().splitlines()) <= 40 for path in scripts.values())
    assert scripts.keys() == {
        "draw_recording", "ensemble_runs", "own_panel", "own_training_loop", "predict_recording"
    }  # fmt: skip


def test_draw_recording(example, recordings, index, tmp_path):
    example("draw_recording", recordings, index.frame["eeg_id"].iloc[0], tmp_path / "out")
    pictures = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out").iterdir()}
    assert pictures["traces"].shape == (640, 1600)
    assert all(picture.std() > 0 for picture in pictures.values())


def test_predict_recording(example, trained, edf_file, capsys):
    example("predict_recording", trained, edf_file)
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:2] == ["25.0", "s"]
    assert 1 / 6 < float(first[3]) <= 1


def test_own_training_loop(example, shard_set, trained, capsys):
    example("own_training_loop", shard_set, trained / "canvas.yaml", 2)
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[3]) for line in lines]
    assert losses[1] < losses[0] < 3


def test_own_panel(example, recordings, index, capsys):
    example("own_panel", recordings, index.frame["eeg_id"].iloc[0])
    assert capsys.readouterr().out.startswith("[[[")


def test_ensemble_runs(example, shard_set, trained, capsys):
    example("ensemble_runs", shard_set, trained, trained)
    *each, pooled = [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert set(each) == {pooled}
    assert yaml.safe_load((trained / "config.yaml").read_text())["num_folds"] == 3


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_without_arguments_they_print_their_usage(name, example, capsys):
    with pytest.raises(SystemExit) as end:
        example(name)
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: {name}.py ")
    assert error.startswith(f"{name}.py: error: the following arguments are required: ")
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("draw_recording", ["nowhere", 1, "out"], "nowhere"),
        ("ensemble_runs", ["nowhere", "run"], "run"),
        ("own_panel", ["nowhere", 1], "nowhere"),
        ("own_training_loop", ["nowhere", "demo"], "nowhere"),
        ("predict_recording", ["nowhere", "night.edf"], "nowhere"),
    ],
)
def test_a_wrong_path_is_an_error_of_one_line(name, words, expected, example, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        example(name, *words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}.py: {expected}")
    assert end.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_wrong_types_and_files_of_another_kind(example, trained, shard_set, capsys):
    for name, *words in [
        ("draw_recording", shard_set, "one", "out"),
        ("draw_recording", shard_set, 1, "out"),
        ("own_panel", trained, 1),
        ("own_training_loop", shard_set, "demo", "two"),
        ("own_training_loop", shard_set, "nowhere.yaml"),
        ("own_training_loop", trained, "demo"),
        ("predict_recording", trained, "night.edf"),
        ("predict_recording", shard_set, "night.edf"),
        ("ensemble_runs", trained, trained),
    ]:
        with pytest.raises(SystemExit) as end:
            example(name, *words)
        assert end.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"{name}.py: ")
