"""`hms-dist show`: the plain picture is the canvas pixel for pixel; the labelled one holds it, with room around."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hms_dist.report.labelled import save_labelled
from PIL import Image

from hms_dist.canvas.augment import AugmentConfig, Augmenter, draw_reversals
from hms_dist.canvas.augment.groups import one_group
from hms_dist.canvas.compose import CanvasConfig
from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.report.picture import gray
from hms_dist.report.show import Show
from hms_dist.shards.index import read_index
from hms_dist.train.data.run_data import open_shards


@pytest.fixture
def show(shard_set, tmp_path):
    """The command on the first sample, with more words: the picture it writes."""
    key = read_index(shard_set / "index.parquet").frame["key"].iloc[0]

    def run(*words: str) -> np.ndarray:
        out = tmp_path / "picture.png"
        assert main(["show", "--shards", str(shard_set), "--key", key, "--out", str(out), *words]) == 0
        with Image.open(out) as image:
            return np.asarray(image)

    return run


def canvas_file(repository: Path, name: str) -> str:
    return str(repository / f"configs/canvas/{name}.yaml")


@pytest.mark.parametrize("flip", [False, True])
def test_the_plain_picture_is_the_canvas(show, shard_set, repository, flip: bool) -> None:
    file = canvas_file(repository, "demo")
    shards = open_shards(shard_set, load(CanvasConfig, ["--config", file]), flips=True)
    stored = {
        name: torch.from_numpy(array) for name, array in shards.reader.read(np.array([0]), np.array([flip])).items()
    }
    image = shards.canvas(stored, torch.tensor([flip]))[0, 0].numpy()
    expected = gray(image, low=min(0.0, float(image.min())), high=max(1.0, float(image.max())))
    np.testing.assert_array_equal(show("--canvas", file, "--flip", str(flip).lower()), expected)


def test_an_augmented_picture_is_that_of_training(show, shard_set, repository) -> None:
    """The picture that the first row has at an epoch of a run with the same seed; its time may run backwards."""
    file, chain = canvas_file(repository, "demo"), str(repository / "configs/augment/peers.yaml")
    shards = open_shards(shard_set, load(CanvasConfig, ["--config", file]), flips=False)
    stored = {name: torch.from_numpy(array) for name, array in shards.reader.read(np.array([0])).items()}
    augmenter = Augmenter(config := load(AugmentConfig, ["--config", chain]), shards.canvas)
    found = []
    for epoch in range(6):
        when = {"seed": 4, "epoch": epoch}
        reverse = draw_reversals(np.array([0]), **when, probability=config.reverse_probability)
        images = shards.canvas(stored, None, reverse)
        image = augmenter(images, torch.zeros(1, 6), one_group(np.array([0])), **when)[0][0, 0].numpy()
        expected = gray(image, low=min(0.0, float(image.min())), high=max(1.0, float(image.max())))
        found.append(show("--canvas", file, "--augment", chain, "--seed", "4", "--epoch", str(epoch)))
        np.testing.assert_array_equal(found[-1], expected)
    assert len({picture.tobytes() for picture in found}) > 3


def test_augmented_pictures_have_limits(repository, tmp_path) -> None:
    chain = str(repository / "configs/augment/sixteenth_place.yaml")
    words = ["--shards", "x", "--key", "1-0", "--out", "a.png", "--augment", chain]
    canvas = ["--canvas", canvas_file(repository, "demo")]
    for more, message in (
        ([], "augment: is for canvases"),
        ([*canvas, "--axes"], "axes: would be wrong beside an augmented picture"),
        (["--canvas", small_canvas(tmp_path)], "CoarseDropout does not fit the canvas of 32 x 32 pixels"),
    ):
        with pytest.raises(UserError, match=message):
            load(Show, [*words, *more])


def small_canvas(folder: Path) -> str:
    path = folder / "small.yaml"
    path.write_text("{height: 32, width: 32, placements: [{panel: traces, top: 0, left: 0, height: 32, width: 32}]}")
    return str(path)


@pytest.mark.parametrize("name", ["demo", "sixteenth_place", "seed_003"])
def test_the_labelled_picture_holds_every_placement(show, repository, name: str) -> None:
    pytest.importorskip("matplotlib")
    file = canvas_file(repository, name)
    plain, labelled = show("--canvas", file), show("--canvas", file, "--axes", "true")
    assert labelled.ndim == 3
    assert all(there > here for here, there in zip(plain.shape, labelled.shape, strict=False))
    dark = (labelled[..., 0] < 250).mean()
    assert dark > 0.4
    for edge in (labelled[:4], labelled[-4:], labelled[:, :4], labelled[:, -4:]):
        assert (edge == 255).mean() > 0.98  # nothing is cut off


def test_without_a_key_it_is_the_first_sample(show, shard_set, repository, tmp_path) -> None:
    canvas = ["--canvas", canvas_file(repository, "demo")]
    expected = show(*canvas)
    assert main(["show", "--shards", str(shard_set), "--out", str(tmp_path / "first.png"), *canvas]) == 0
    with Image.open(tmp_path / "first.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_sheet_without_a_canvas(show) -> None:
    assert show().ndim == 2


def test_data_wide_statistics_are_computed_when_a_canvas_lacks_them(show, repository, capsys) -> None:
    picture = show("--canvas", canvas_file(repository, "seed_003_data_wide"))
    assert picture.std() > 10
    assert "data-wide statistics are computed from every row of" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["flip", "axes"])
def test_what_needs_a_canvas(shard_set, tmp_path, option: str, capsys) -> None:
    words = ["show", "--shards", str(shard_set), "--key", "x", "--out", str(tmp_path / "p.png"), f"--{option}", "true"]
    assert main(words) == 2
    assert f"{option}: is for canvases, not for a sheet of panels; give --canvas" in capsys.readouterr().err


def test_axes_without_matplotlib(shard_set, repository, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    config = load(CanvasConfig, ["--config", canvas_file(repository, "demo")])
    canvas = open_shards(shard_set, config, flips=False).canvas
    with pytest.raises(UserError, match=r"pip install 'hms-dist\[report\]', or leave out --axes"):
        save_labelled(tmp_path / "p.png", canvas, np.zeros((128, 320)), title="x", flip=False)


def test_a_notebooks_backend_that_is_not_there(shard_set, repository, tmp_path) -> None:
    """Cells hand MPLBACKEND to `!hms-dist ...`; the environment of the command may lack the module."""
    words = ["show", "--shards", str(shard_set), "--canvas", canvas_file(repository, "demo"), "--axes"]
    done = subprocess.run(
        [sys.executable, "-m", "hms_dist", *words, "--out", str(tmp_path / "p.png")], capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.png").stat().st_size > 1000
