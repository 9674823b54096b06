"""Every bench runs at its smallest size; its figures are not checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
BENCHES = Path(__file__).parents[1] / "scripts/bench"
TINY_STEP = ["--rounds", "1", "--round_steps", "1", "--batches", "2", "--predict_batch", "2", "--curve_steps", "2"]


def bench(name: str, *words: object, codes: tuple[int, ...] = (0,)) -> str:
    """The output of a bench."""
    command = [sys.executable, BENCHES / f"{name}.py", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": f"{BENCHES.parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode in codes, done.stderr[-3000:]
    return done.stdout


def rows(output: str) -> dict[str, list[str]]:
    """The lines of a Markdown table: first cell -> the others."""
    lines = [line.strip("|").split("|") for line in output.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in cells] for first, *cells in lines}


def test_render(tmp_path):
    words = ("--num_recordings", 1, "--rounds", 1, "--json", tmp_path / "found.json")
    output = bench("render", *words, codes=(0, 1))  # 1: a target was missed
    works = {"trace picture", "scalogram", "EEG spectrogram, 16th place", "one record, parquet to encoded"}
    assert works <= set(rows(output))
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    assert len(results) == 7
    for result in results:
        assert set(result["milliseconds"]) - {"hms_dist"} == set(result["times_faster"])
        assert result["times_faster"] or result["not_installed"]


def test_audio(tmp_path):
    words = ("--rounds", 1, "--batch", 2, "--steps", 1, "--device", "cpu", "--json", tmp_path / "found.json")
    output = bench("audio", *words, codes=(0, 1))  # 1: a target was missed
    assert {"log-mel 128 x 938", "PCEN 128 x 938", "log_mel", "pcen"} <= set(rows(output))
    rates = json.loads((tmp_path / "found.json").read_text())["device"]["rates"]
    assert all(rate > 0 for found in rates.values() for rate in found.values())


def test_peers_that_are_not_installed_get_a_row(tmp_path):
    """Modules of these names that cannot be imported come first on the path."""
    for name in ("justpyplot", "librosa", "fcwt"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    words = ("--num_recordings", 1, "--rounds", 1, "--cases", "traces", "eeg_spectrograms", "record")
    command = [sys.executable, BENCHES / "render.py", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{BENCHES.parents[1]}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    assert table["trace picture"][:2] == ["justpyplot", "not installed"]
    assert table["EEG spectrogram, 16th place"][:2] == ["librosa", "not installed"]
    assert table["one record, parquet to encoded"][1] == "not installed"


def test_factory():
    table = rows(bench("factory", "--num_rows", 64, "--repeats", 1, "--full_rows", 1000))
    assert float(table["rows/s, 2 workers"][0]) > 0
    assert "1,000 rows, two shards open, to the manifest" in table


def test_mixing():
    table = rows(bench("mixing", "--num_rows", 2000))
    assert {"table order", "spectrograms shuffled (ours)", "rows shuffled"} <= set(table)


def test_locality():
    words = ("--rounds", 1, "--seconds", 0.2, "--latency_ms", 2, "--num_recordings", 4, "--num_rows", 2000)
    table = rows(bench("locality", *words))
    assert float(table["blocks of 32"][0].replace(",", "")) > 0


def test_loader(tmp_path):
    words = ("--out", tmp_path, "--rounds", 1, "--seconds", 0.05, "--num_rows", 64, "--no_install")
    table = rows(bench("loader", *words))
    for name in ("hms_dist", "WebDataset raw", "WebDataset PNG", "Dataset of .npy"):
        assert float(table[name][0].split(" / ")[0].replace(",", "")) > 0, name
    for name in ("FFCV", "SPDL", "LitData", "MosaicML streaming"):
        assert table[name][0].startswith("not installed") or " / " in table[name][0]


def test_model_on_the_cpu(tmp_path):
    words = ("--device", "cpu", "--model", "tiny_vit_5m_224", "--size", 64, 128, *TINY_STEP)
    words += ("--parts", "step", "equal", "predict", "--systems", "timm eager", "hms_dist eager")
    bench("model", *words, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {row["part"] for row in found} == {"step", "equal", "predict"}
    exact = next(row for row in found if row.get("type") == "float32")
    assert max(exact["logits"], exact["gradients"]) < 1e-4


def test_trainer_on_the_cpu(tmp_path):
    words = (tmp_path, "--device", "cpu", "--tasks", "efficientnet", "--num_recordings", 6, "--workers", 2)
    table = rows(bench("trainer", *words, "--epochs", 1, "--batch", 4, "--warm_up_steps", 1, "--rounds", 1))
    assert float(table["efficientnet"][2]) > 0


def test_recipes_on_the_cpu_continue_from_what_is_measured(tmp_path):
    words = (tmp_path, "--device", "cpu", "--recipes", "public_baseline", "--num_recordings", 16, "--workers", 2)
    words += ("--modes", "null", "--epochs", 1, "--rounds", 1, "--json", tmp_path / "found.json")
    words += ("--words", "model.name=test_efficientnet", "global_batch=8", "precision=float32")
    bench("recipes", *words, "--loops")
    before = json.loads((tmp_path / "found.json").read_text())["recipes"]["public_baseline"]
    bench("recipes", *words, "--loops", "eager")
    after = json.loads((tmp_path / "found.json").read_text())["recipes"]["public_baseline"]
    assert set(before) == {"hms_dist, compile_mode null"}
    assert set(after) == {"hms_dist, compile_mode null", "plain loop, eager"}
    assert all(after[system] == row for system, row in before.items())
    assert all(row["images_per_s"] > 0 for row in after.values())


@pytest.mark.timeout(3600)
def test_scaling_on_the_cpu(tmp_path):
    words = (tmp_path, "--device", "cpu", "--recipes", "public_baseline", "--num_recordings", 16, "--workers", 2)
    words += ("--epochs", 1, "--timed_epochs", 1, "--num_seeds", 2, "--warm_up_steps", 1)
    bench("scaling", *words, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["found"]["public_baseline"]
    assert found["same"]["losses"]["2"]["relative_difference"] < 1e-5
    assert found["same"]["gradient, float32"]["2"] < 1e-4
    assert found["norms"]["2"]["all_reduces"] > 0
    stopped = [found["launchers"]["accelerate"], *found["kills"].values(), *found["same"]["losses"].values()]
    assert all(each["relative_difference"] < 1e-5 and each["steps_missing"] == 0 for each in stopped)


@pytest.mark.gpu
def test_model():
    words = ("--model", "tiny_vit_5m_224", "--size", 64, 128, *TINY_STEP, "--parts", "step", "equal", "predict")
    bench("model", *words)


@pytest.mark.gpu
def test_trainer(tmp_path):
    words = (tmp_path, "--num_recordings", 40, "--workers", 4, "--batch", 8, "--warm_up_steps", 1, "--rounds", 1)
    assert {"efficientnet", "tiny_vit"} <= set(rows(bench("trainer", *words)))


@pytest.mark.gpu
def test_loader_to_the_gpu(tmp_path):
    words = ("--device", "cuda", "--out", tmp_path, "--rounds", 1, "--seconds", 0.05, "--num_rows", 64, "--no_install")
    assert {"hms_dist", "operation by operation", "as a graph"} <= set(rows(bench("loader", *words)))
