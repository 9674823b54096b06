"""`hms-dist show`: the plain picture is the canvas pixel for pixel; sheets hold every panel, labelled."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from hms_dist.canvas.augment import AugmentConfig, Augmenter, draw_reversals
from hms_dist.canvas.augment.groups import one_group
from hms_dist.canvas.compose import CanvasConfig
from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.report.parts import REGION_ROWS
from hms_dist.report.picture import gray
from hms_dist.report.sheet import LEFT, NAME_ROWS, RIGHT, TITLE_ROWS, WIDTH
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
    for more, message in (
        ([], "augment: is for canvases"),
        (["--canvas", small_canvas(tmp_path)], "CoarseDropout does not fit the canvas of 32 x 32 pixels"),
    ):
        with pytest.raises(UserError, match=message):
            load(Show, [*words, *more])


def small_canvas(folder: Path) -> str:
    path = folder / "small.yaml"
    path.write_text("{height: 32, width: 32, placements: [{panel: traces, top: 0, left: 0, height: 32, width: 32}]}")
    return str(path)


@pytest.mark.parametrize("name", ["demo", "seed_003"])
def test_the_labelled_picture_holds_every_placement(show, repository, name: str) -> None:
    pytest.importorskip("matplotlib")
    labelled = show("--canvas", canvas_file(repository, name), "--axes", "true")
    check_sheet(labelled, 3 if name == "demo" else 1)


def check_sheet(picture: np.ndarray, num_parts: int) -> None:
    """Pictures below each other, as wide as planned, in colour, with nothing cut off at the edges."""
    assert picture.shape[1] == LEFT + WIDTH + RIGHT
    ink = (picture[..., :3] != 255).any(-1)
    frame = ink[:, LEFT + 5 : LEFT + WIDTH - 5].all(1)  # the lines above and below each picture
    starts = np.flatnonzero(np.diff(frame.astype(int)) == 1)
    assert len(starts) >= num_parts
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert (edge == 255).mean() > 0.98
    assert (np.ptp(picture[..., :3].astype(int), axis=-1) > 60).mean() > 0.1


def test_a_sheet_of_all_panels(show) -> None:
    pytest.importorskip("matplotlib")
    check_sheet(show(), 4)


def test_axes_of_an_augmented_picture(show, repository) -> None:
    pytest.importorskip("matplotlib")
    words = ["--canvas", canvas_file(repository, "demo"), "--axes", "--seed", "3"]
    plain, augmented = show(*words), show(*words, "--augment", str(repository / "configs/augment/peers.yaml"))
    assert plain.shape == augmented.shape
    check_sheet(augmented, 3)
    assert (plain != augmented).any()


def test_without_a_key_it_is_the_first_sample(show, shard_set, repository, tmp_path) -> None:
    canvas = ["--canvas", canvas_file(repository, "demo")]
    expected = show(*canvas)
    assert main(["show", "--shards", str(shard_set), "--out", str(tmp_path / "first.png"), *canvas]) == 0
    with Image.open(tmp_path / "first.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_data_wide_statistics_are_computed_when_a_canvas_lacks_them(show, repository, capsys) -> None:
    picture = show("--canvas", canvas_file(repository, "seed_003_data_wide"))
    assert picture.std() > 10
    assert "data-wide statistics are computed from every row of" in capsys.readouterr().err


def test_a_negative_epoch_is_refused(tmp_path, capsys):
    words = ["--shards", str(tmp_path), "--canvas", "demo", "--epoch", "-1", "--out", str(tmp_path / "a.png")]
    assert main(["show", *words]) == 2
    assert capsys.readouterr().err == "hms-dist show: epoch: expected at least 0, found -1\n"


@pytest.mark.parametrize("option", ["flip", "axes"])
def test_what_needs_a_canvas(shard_set, tmp_path, option: str, capsys) -> None:
    words = ["show", "--shards", str(shard_set), "--key", "x", "--out", str(tmp_path / "p.png"), f"--{option}", "true"]
    assert main(words) == 2
    assert f"{option}: is for canvases, not for a sheet of panels; give --canvas" in capsys.readouterr().err


@pytest.mark.parametrize("axes", [False, True])
def test_sheets_without_matplotlib(shard_set, repository, tmp_path, monkeypatch, capsys, axes: bool) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["show", "--shards", str(shard_set), "--out", str(tmp_path / "p.png")]
    words += ["--canvas", canvas_file(repository, "demo"), "--axes"] if axes else []
    assert main(words) == 2
    assert "pip install 'hms-dist[report]', or give --canvas without --axes" in capsys.readouterr().err


def test_a_notebooks_backend_that_is_not_there(shard_set, repository, tmp_path) -> None:
    """Cells hand MPLBACKEND to `!hms-dist ...`; the environment of the command may lack the module."""
    words = ["show", "--shards", str(shard_set), "--canvas", canvas_file(repository, "demo"), "--axes"]
    done = subprocess.run(
        [sys.executable, "-m", "hms_dist", *words, "--out", str(tmp_path / "p.png")], capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_a_window_of_a_clip_has_its_sound_at_its_seconds(tmp_path, capsys) -> None:
    """A burst from 12 to 13 s in the window from 10 to 20 s of 21 s, at another rate."""
    time_s = np.arange(21 * 16_000) / 16_000
    burst = 0.5 * np.sin(2 * np.pi * 1000 * time_s) * ((time_s > 12) & (time_s < 13))
    soundfile.write(tmp_path / "clip.wav", burst, 16_000)
    words = ["show", "--recording", str(tmp_path / "clip.wav"), "--out", str(tmp_path / "clip.png")]
    assert main([*words, "--at", "00:15"]) == 0
    assert "clip.wav, 10.00 to 20.00 s drawn" in capsys.readouterr().err
    with Image.open(tmp_path / "clip.png") as image:
        pixels = np.asarray(image.convert("L"))[TITLE_ROWS + NAME_ROWS : TITLE_ROWS + NAME_ROWS + 2 * REGION_ROWS]
    columns = np.flatnonzero((pixels[5:-5, LEFT + 5 : LEFT + WIDTH - 5] > 220).any(axis=0)) + 5
    assert columns.min() == pytest.approx(0.2 * WIDTH, abs=6)
    assert columns.max() == pytest.approx(0.3 * WIDTH, abs=6)
    for more, message in (
        (["--at", "22"], "at: expected 0 to 21 s, the length of the recording, found 22 s"),
        (["--map", "A1=T3"], "map: is for EEG, clip.wav is audio; leave it out"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    soundfile.write(tmp_path / "clip.wav", burst[:800], 16_000)
    assert main(words) == 0, "a clip of 0.05 s is drawn with silence after it"
