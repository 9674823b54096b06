"""A bundle for Kaggle: made here, then installed and run without network, beside the packages of the image alone."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from hms_dist.cli import main

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "scripts/kaggle_bundle.sh"
MISSING = "jsonargparse"
"""A package of this environment that the image lacks."""


def forget():
    """accelerate keeps one state per process; the next run begins like a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def bundle(one_epoch, tmp_path_factory) -> Path:
    """A bundle of one run for an image with all packages of this environment except MISSING, from a local index."""
    folder = tmp_path_factory.mktemp("bundle")
    found = {dist.name: dist.version for dist in reversed([*metadata.distributions()])}  # setuptools brings copies too
    lines = [f"{name}=={version}" for name, version in found.items() if name not in ("hms-dist", MISSING)]
    (folder / "image.txt").write_text("\n".join(lines))
    (folder / "index").mkdir()
    repack(MISSING, folder / "index")
    done = call(one_epoch, "--out", folder / "bundle", *options(folder / "image.txt"), index=folder / "index")
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


def options(image: Path) -> list[object]:
    return ["--python", f"3.{sys.version_info.minor}", "--torch", metadata.version("torch"), "--image", image]


def call(*words: object, index: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    return subprocess.run([SCRIPT, *map(str, words)], env=environment, capture_output=True, text=True, check=False)


def repack(name: str, folder: Path) -> None:
    """Write the wheel of an installed package."""
    dist = metadata.distribution(name)
    with zipfile.ZipFile(folder / f"{name}-{dist.version}-py3-none-any.whl", "w") as wheel:
        for file in dist.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                wheel.write(str(file.locate()), str(file))


def image(folder: Path) -> Path:
    """Return the Python of an environment that has the packages of this one except MISSING and this package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    packages = folder / "packages"
    packages.mkdir()
    for path in Path(metadata.distribution("torch").locate_file("")).iterdir():
        if not path.name.startswith((MISSING, "hms_dist", "__editable__")):
            (packages / path.name).symlink_to(path)
    lines = [str(packages)]
    lines += [line for path in packages.glob("torchvision*.pth") for line in path.read_text().splitlines()]
    (site / "image.pth").write_text("\n".join(lines))
    return folder / "bin/python"


@pytest.mark.slow
def test_a_bundle_holds_what_prediction_reads_and_nothing_of_the_image(bundle, one_epoch):
    wheels = sorted(path.name.partition("-")[0] for path in (bundle / "wheels").iterdir())
    assert wheels == ["hms_dist", MISSING]
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    (run,) = {name.split("/")[1] for name in files if name.startswith("runs/")}
    weights = {f"best/{path.name}" for path in (one_epoch / "best").iterdir()}
    assert {name.removeprefix(f"runs/{run}/") for name in files if name.startswith("runs/")} == {
        "config.yaml", "canvas.yaml", "render.yaml", *weights,
    }  # fmt: skip
    digests = dict(line.split("  ")[::-1] for line in (bundle / "SHA256SUMS").read_text().splitlines())
    assert set(digests) == files - {"SHA256SUMS"}
    assert all(hashlib.sha256((bundle / name).read_bytes()).hexdigest() == found for name, found in digests.items())


@pytest.mark.slow
def test_damaged_weights_and_an_occupied_folder_are_refused(bundle, one_epoch, tmp_path):
    damaged = shutil.copytree(one_epoch, tmp_path / "damaged")
    weights = damaged / "best/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    done = call(damaged, "--out", tmp_path / "new", index=tmp_path)
    assert done.returncode == 2
    assert f"{weights}: its SHA-256 is not the one in hashes.json" in done.stderr
    assert not list(tmp_path.glob("new*"))
    done = call(one_epoch, "--out", bundle, index=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"kaggle_bundle.sh: {bundle}: exists already; choose another --out\n")


@pytest.mark.slow
def test_the_notebook_submits_without_network(bundle, one_epoch, recordings, tmp_path):
    isolated = ["unshare", "--net"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare --net, as root")
    data = tmp_path / "input/competition"
    table = pd.read_csv(recordings / "train.csv").drop_duplicates("eeg_id").head(5)
    for kind in ("eeg", "spectrogram"):
        (data / f"test_{kind}s").mkdir(parents=True)
        for number in table[f"{kind}_id"].unique():
            shutil.copy(recordings / f"train_{kind}s/{number}.parquet", data / f"test_{kind}s")
    table[["spectrogram_id", "eeg_id", "patient_id"]].to_csv(data / "test.csv", index=False)
    shutil.copytree(bundle, tmp_path / "input/datasets/team/bundle")
    python = image(tmp_path / "image")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    environment |= {f"HMS_{name.upper()}": str(tmp_path / name) for name in ("input", "working", "scratch")}
    notebook = tmp_path / "input/datasets/team/bundle/kaggle_hms_offline.py"
    done = subprocess.run(
        [*isolated, python, notebook], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob(f"image/lib/python*/site-packages/{MISSING}/__init__.py"))

    submission = pd.read_csv(tmp_path / "working/submission.csv")
    words = ["--run", one_epoch, "--data", data, "--out", tmp_path / "here.csv", "--tta", "flip"]
    assert main(["predict", *map(str, words)]) == 0
    forget()
    pd.testing.assert_frame_equal(submission, pd.read_csv(tmp_path / "here.csv"), rtol=0, atol=1e-6)
