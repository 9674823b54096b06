"""A whole job on simulated recordings, through the commands, against what was recorded in tests/golden/.

simulate, render, train (stopped after its first step of four, then resumed), predict, score. Two kinds of comparison:

- Bytes: SHA-256 of tars, index and predictions. Only with the package versions and the processor of the record;
  skipped elsewhere, with the difference as the reason.
- Values, everywhere: the manifest, the index, `PICKS` values of each panel of each row, losses and metrics without
  times, predictions and scores, within the tolerances below. A column, option or metric that the record lacks passes.

`pytest tests/test_golden.py --record-golden` writes a new record; CONTRIBUTING.md explains when to do that.
"""

import hashlib
import importlib.metadata
import io
import json
import logging
import platform
import re
import runpy
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zstandard
from accelerate.state import AcceleratorState

from hms_dist.cli import main

GOLDEN = Path(__file__).parent / "golden"
PACKAGES = (
    "numpy", "scipy", "numba", "PyWavelets", "pandas", "pyarrow", "zstandard", "torch", "torchvision", "timm",
)  # fmt: skip
CLASSES = ["seizure", "lpd", "gpd", "lrda", "grda", "other"]
PICKS = 257
"""Values of each panel of each row in the record, evenly spread over it."""
CHANGED_SHARE = 0.005
"""Of a panel's picked values, the most that may differ elsewhere: pixels of traces, one level of u8, a step of f16."""
FLOAT16_STEP = 2**-9
"""Two neighbours of float16 differ by at most 2^-10 of their size; twice that."""
LOSS, PREDICTION, EXACT = 1e-6, 1e-5, 1e-9
"""Differences of losses and metrics, of predictions and scores, and of numbers that nothing rounds."""
TIMES = {"images_per_s", "data_wait_share", "epoch_s", "evaluation_s", "checkpoint_s"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "data"
    assert main(["simulate", "--out", str(folder), "--num_recordings", "8", "--seed", "16"]) == 0
    return folder


@pytest.fixture(scope="module")
def shards(data) -> Path:
    out = data.parent / "set"
    assert _render(data, out, workers=1) == 0
    return out


@pytest.fixture(scope="module")
def job(data, shards, repository) -> Path:
    """The folder of the job: `set`, `run`, `predictions.parquet` and `scores.json`."""
    folder, threads = shards.parent, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _StopAtFirstStep(folder / "run"):
            assert _train(repository, folder) == 1
        assert json.loads((folder / "run" / "status.json").read_text())["state"] == "stopped"
        assert [line["step"] for line in _metrics(folder)] == [1]
        assert _train(repository, folder) == 0
        out = ["--out", str(folder / "predictions.parquet")]
        assert main(["predict", "--run", f"{folder}/run", "--shards", f"{folder}/set", *out, "--tta", "[flip]"]) == 0
        given = ["--predictions", str(folder / "predictions.parquet"), "--labels", str(folder / "set")]
        also = ["--truth", str(data / "truth.parquet"), "--rows", "all", "--num_draws", "50"]
        also += ["--out", str(folder / "scores.json")]
        assert main(["score", *given, *also]) == 0
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        _forget()
    return folder


@pytest.fixture(scope="module")
def record(job, pytestconfig) -> dict[str, Any]:
    """The record; with --record-golden, of this very job."""
    if pytestconfig.option.record_golden:
        facts = {
            "place": _place(), "bytes": _bytes(job), "manifest": _manifest(job), "index": _index(job),
            "metrics": _metrics(job), "scores": _scores(job),
            "predictions": {name: _predictions(job / name) for name in TABLES},
        }  # fmt: skip
        (GOLDEN / "record.json").write_text(json.dumps(facts, indent=1) + "\n")
        np.savez_compressed(GOLDEN / "panels.npz", **_panels(job))
    return json.loads((GOLDEN / "record.json").read_text())


def test_bytes_are_as_recorded(job, record):
    here, there = _place(), record["place"]
    different = [f"{name} {here[name]}, recorded with {there[name]}" for name in there if here[name] != there[name]]
    if different:
        pytest.skip(f"bytes are compared only where they were recorded: {'; '.join(different)}")
    assert _bytes(job) == record["bytes"]


def test_manifest_and_index_are_as_recorded(job, record):
    assert_close(_manifest(job), record["manifest"], EXACT)
    assert_close(_index(job), record["index"], EXACT)


def test_panels_are_as_recorded(job, record):
    recorded, found = np.load(GOLDEN / "panels.npz"), _panels(job)
    for name in recorded.files:
        one, other = recorded[name].astype(float), found[name].astype(float)
        differs = ~((one == other) | np.isnan(one) & np.isnan(other))
        assert differs.mean() <= CHANGED_SHARE, name
        if recorded[name].dtype == np.float16:
            np.testing.assert_allclose(other, one, rtol=FLOAT16_STEP, atol=FLOAT16_STEP, err_msg=name)
        else:
            assert np.abs(one - other).max() <= 1, name


def test_training_is_as_recorded(job, record):
    assert_close(_metrics(job), record["metrics"], LOSS)


def test_predictions_and_scores_are_as_recorded(job, record):
    assert_close({name: _predictions(job / name) for name in TABLES}, record["predictions"], PREDICTION)
    assert_close(_scores(job), record["scores"], PREDICTION)


@pytest.mark.slow
def test_two_render_workers_write_the_same_bytes(data, shards):
    assert _render(data, data.parent / "of_two", workers=2) == 0
    found = {path.name: path.read_bytes() for path in (data.parent / "of_two").iterdir() if path.is_file()}
    assert found == {path.name: path.read_bytes() for path in shards.iterdir() if path.is_file()}
    assert sum(name.endswith(".tar") for name in found) == 4


def assert_close(found: Any, recorded: Any, tolerance: float, where: str = "") -> None:
    """Every number of the record within `tolerance` (of 1, or of its size where that is larger), all else equal."""
    if isinstance(recorded, dict):
        assert not recorded.keys() - found.keys(), f"{where}: lacks {recorded.keys() - found.keys()}"
        for name in recorded:
            assert_close(found[name], recorded[name], tolerance, f"{where}.{name}")
    elif isinstance(recorded, list):
        assert len(found) == len(recorded), f"{where}: {len(found)} values, recorded {len(recorded)}"
        for number, value in enumerate(recorded):
            assert_close(found[number], value, tolerance, f"{where}[{number}]")
    elif isinstance(recorded, float):
        assert abs(found - recorded) <= tolerance * max(1, abs(recorded)), f"{where}: {found}, recorded {recorded}"
    else:
        assert (type(found), found) == (type(recorded), recorded), f"{where}: {found}, recorded {recorded}"


class _StopAtFirstStep(logging.Handler):
    """Sends this process SIGTERM at the first line that a run logs once its metrics.jsonl is there: before it trains.

    It then stops, saved, after its first step.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if (self._run / "metrics.jsonl").exists() and callable(signal.getsignal(signal.SIGTERM)):
            signal.raise_signal(signal.SIGTERM)


def _render(data: Path, out: Path, *, workers: int) -> int:
    recipe = ["--config", str(GOLDEN / "render.yaml"), "--workers", str(workers)]
    return main(["render", "--data", str(data), "--out", str(out), *recipe])


def _train(repository: Path, folder: Path) -> int:
    """`python train.py ...`, in this process; its exit code."""
    given = ["--config", str(GOLDEN / "train.yaml"), "--shards", str(folder / "set"), "--out", str(folder / "run")]
    _forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *given])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(repository / "train.py"), run_name="__main__")
    _forget()
    return int(left.value.code or 0)


def _forget() -> None:
    """accelerate keeps one state per process; each command begins like a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)


def _place() -> dict[str, str]:
    """Determinants of the bytes besides the code: package versions and the processor's family."""
    lines = dict(
        re.findall(r"^(vendor_id|cpu family|model)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    )
    processor = " ".join(f"{name} {value}" for name, value in sorted(lines.items())) or platform.machine()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"processor": processor, "python": platform.python_version(), **versions}


TABLES = ("run/predictions.parquet", "predictions.parquet")


def _bytes(job: Path) -> dict[str, str]:
    """SHA-256 of each tar and the index, and of the ids and probabilities in tables of predictions.

    The tables' metadata name the weights, whose digests change with the run's configuration.
    """
    contents = {path.name: path.read_bytes() for path in sorted((job / "set").iterdir()) if path.suffix != ".json"}
    for name in TABLES:
        table = pd.read_parquet(job / name)
        contents[name] = "\n".join(table["key"]).encode() + table[CLASSES].to_numpy(np.float64).tobytes()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _manifest(job: Path) -> dict[str, Any]:
    """The manifest without versions, digests and sizes; classes by their bare names."""
    value = json.loads((job / "set" / "manifest.json").read_text())
    sources = {name: value["sources"][name] for name in ("split", "num_recordings", "num_rejected")}
    files = [[file["name"], file["num_samples"]] for file in value["files"]]
    return {
        "num_samples": value["num_samples"], "files": files, "panels": value["panels"], "sources": sources,
        "render_config": _bare(value["render_config"]),
    }  # fmt: skip


def _index(job: Path) -> dict[str, list[Any]]:
    """Ids, offsets in the recordings, votes and folds of each row; not the positions of its members, nor
    fingerprints."""
    frame = pd.read_parquet(job / "set" / "index.parquet")
    return {name: _values(frame[name]) for name in frame if "." not in name and "fingerprint" not in name}


def _bare(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: part.rpartition(".")[2] if name == "class_path" else _bare(part) for name, part in value.items()}


def _panels(job: Path) -> dict[str, np.ndarray]:
    """[rows, PICKS] values of each panel, rows in the order of the tars. Read as WebDataset and numpy would."""
    specs = json.loads((job / "set" / "manifest.json").read_text())["panels"]
    found: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    for path in sorted((job / "set").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                name = member.name.split(".")[1]
                if name in specs:
                    found[name].append(_picks(tar.extractfile(member).read(), specs[name]))
    return {name: np.stack(rows) for name, rows in found.items()}


def _picks(content: bytes, spec: dict[str, Any]) -> np.ndarray:
    array = np.load(io.BytesIO(zstandard.decompress(content) if spec["codec"] == "npy.zst" else content))
    values = (np.unpackbits(array, axis=-1) if spec["dtype"] == "bit" else array).ravel()
    return values[np.linspace(0, values.size - 1, PICKS).astype(np.int64)]


def _metrics(job: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (job / "run" / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def _predictions(path: Path) -> list[list[Any]]:
    table = pd.read_parquet(path)
    return [list(row) for row in zip(*(_values(table[name]) for name in ("key", "fold", *CLASSES)), strict=True)]


def _values(column: pd.Series) -> list[Any]:
    """As JSON holds them, None for what is missing."""
    return column.astype(object).where(column.notna(), None).tolist()


def _scores(job: Path) -> dict[str, Any]:
    return json.loads((job / "scores.json").read_text())
