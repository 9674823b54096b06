"""Write what a commit stores: a small shard set, runs, predictions, fits and a study of synthetic recordings.

The folder 5e6f9d5 was written at that commit, which stored the full paths of classes and no format version. Run it in a
checkout of the commit whose storage is to be kept, with that checkout's environment:

    python make.py CHECKOUT OUT

Every path in OUT is relative to OUT. Leases, logs and weights that no test reads are removed, to keep it small.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

NUM_EEGS = 9
NUM_SAMPLES = 10_800
"""54 s at 200 Hz: label rows at 0 and 2 s."""
VOTES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
ELECTRODES = [
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz", "Pz", "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2",
    "EKG",
]  # fmt: skip
RENDER = """
panels:
  spectrogram:
    class_path: EegSpectrogram
    init_args: {hop_samples: 400, num_mels: 12}
  traces: {class_path: Traces}
  traces_flipped: {class_path: Traces, init_args: {flipped: true}}
samples_per_shard: 6
"""
CANVAS = """
height: 32
width: 64
placements:
  - {panel: spectrogram, arrangement: time_down, resize: area, top: 0, left: 0, height: 32, width: 32,
     normalise: {class_path: Affine, init_args: {shift: 80, scale: 0.0125}}}
  - {panel: traces, flipped_panel: traces_flipped, resize: area, top: 0, left: 32, height: 32, width: 32}
"""
TRAIN = """
canvas: canvas.yaml
model: {name: test_efficientnet, drop_rate: 0.2, drop_path_rate: 0.1}
num_folds: 3
epochs: 2
global_batch: 4
group_size: 2
log_every: 1
keep_checkpoints: 1
optim: {lr: 0.003}
"""
KILLED = """
epochs: 3
checkpoint_every: 2
freeze: {num_layers: 24}
augment:
  steps:
    - {class_path: GaussNoise, init_args: {probability: 0.5}}
    - {class_path: MixUp, init_args: {probability: 0.5, alpha: 0.4}}
"""
STAGED = """
stages:
  - {name: first, epochs: 1}
  - {name: second, init: "best:first", epochs: 3, schedule: {name: constant}}
"""
DATA_WIDE = """
canvas:
  height: 32
  width: 64
  placements:
    - {panel: kaggle, arrangement: stacked, resize: area, top: 0, left: 0, height: 32, width: 64,
       normalise: {class_path: DataWide}}
"""


def write_recordings(folder: Path) -> None:
    """Square waves, a rate per class, and one spectrogram: few distinct values, so that the files are small."""
    (folder / "train_eegs").mkdir(parents=True)
    (folder / "train_spectrograms").mkdir()
    bins = np.floor((np.arange(100) + 3) * 200 / 1024 * 100 + 0.5) / 100
    names = [f"{region}_{bin_hz:.2f}" for region in ("LL", "RL", "LP", "RP") for bin_hz in bins]
    power = np.float32(2.0) ** (np.arange(400) // 25 % 7)
    table = pd.DataFrame(np.tile(power, (301, 1)), columns=names)
    table.insert(0, "time", np.arange(301) * 2 + 1)
    table.to_parquet(folder / "train_spectrograms/2000.parquet", index=False, compression="zstd")
    rows = []
    for number in range(NUM_EEGS):
        time_s = np.arange(NUM_SAMPLES) / 200
        wave = np.where(np.sin(2 * np.pi * (1 + number % 6) * time_s) < 0, -1, 1)
        heights = 20.0 + 5 * np.arange(20) + 3 * number
        frame = pd.DataFrame(np.rint(wave[:, None] * heights).astype(np.float32), columns=ELECTRODES)
        frame.to_parquet(folder / f"train_eegs/{1000 + number}.parquet", index=False, compression="zstd")
        for sub in range(2):
            votes = {f"{name}_vote": 1 + 5 * (place == number % 6) for place, name in enumerate(VOTES)}
            rows.append({
                "eeg_id": 1000 + number, "eeg_sub_id": sub, "eeg_label_offset_seconds": 2.0 * sub,
                "spectrogram_id": 2000, "spectrogram_label_offset_seconds": 0.0, "patient_id": 10 + number,
                **votes,
            })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)


def main(checkout: Path, out: Path) -> None:
    """Write everything into `out`, which must not exist."""
    out.mkdir(parents=True)
    write_recordings(out / "recordings")
    files = {"render": RENDER, "canvas": CANVAS, "train": TRAIN, "killed": KILLED, "staged": STAGED,
             "data_wide": DATA_WIDE, "kaggle": "panels: {kaggle: {class_path: KaggleSpectrogram}}"}  # fmt: skip
    for name, text in files.items():
        (out / f"{name}.yaml").write_text(text.lstrip() + "\n" * (not text.endswith("\n")))
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}

    def run_command(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "hms_dist", *words], cwd=out, env=environment, check=True)

    def begun(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "hms_dist", *words], cwd=out, env=environment)

    def train(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(checkout / "train.py"), "--config", "train.yaml", *words]
        return subprocess.Popen(command, cwd=out, env=environment)

    def killed(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
        """Kill a process once it is time."""
        while not is_time():
            assert process.poll() is None, "it ended before"
        process.send_signal(signal.SIGKILL)
        process.wait()

    script = "import json; from hms_dist.images import Panel; from hms_dist.config import to_dict; "
    script += "print(json.dumps([to_dict(panel()) for panel in Panel.__subclasses__()], indent=1))"
    panels = subprocess.run([sys.executable, "-c", script], cwd=out, env=environment, check=True, stdout=-1)
    (out / "panels.json").write_bytes(panels.stdout)
    rendered = ("render", "--config", "render.yaml", "--data", "recordings")
    run_command(*rendered, "--out", "set")
    run_command(*rendered, "--out", "unfinished_set", "--job", "0/2")
    shards = ("--shards", "set")
    assert train(*shards, "--out", "finished_run").wait() == 0
    words = (*shards, "--config", "killed.yaml", "--out", "killed_run")
    killed(train(*words), (out / "killed_run/checkpoints/latest").is_file)
    words = (*shards, "--config", "staged.yaml", "--out", "staged_run")
    killed(train(*words), (out / "staged_run/config.yaml").is_file)
    assert (out / "killed_run/checkpoints/latest").read_text().strip() == "step-00000002"
    assert not (out / "staged_run/checkpoints").exists()
    run_command("render", "--config", "kaggle.yaml", "--data", "recordings", "--out", "kaggle_set")
    assert train("--shards", "kaggle_set", "--out", "data_wide_run", "--config", "data_wide.yaml").wait() == 0
    program = f"{{program: {checkout / 'train.py'}}}"
    recipes = "[{name: a, configs: [train.yaml]}, {name: b, configs: [train.yaml], options: {optim.lr: 0.01}}]"
    grid = ("--recipes", recipes, "--out", "grid/{recipe}/{fold}", "--launch", program)
    run_command("grid", *shards, *grid)
    for recipe in ("a", "b"):
        run_command("oof", "--runs", *(f"grid/{recipe}/{fold}" for fold in range(3)), "--out", f"oof_{recipe}.parquet")
    run_command("predict", "--run", "finished_run", *shards, "--tta", "flip", "--out", "predicted.parquet")
    words = ("predict", "--run", "finished_run", *shards, "--out", "unfinished.parquet")
    killed(begun(*words), lambda: any(out.glob("unfinished.parquet.parts/*/part-*.npy")))
    assert any(out.glob("unfinished.parquet.parts/*/part-*.npy"))
    tables = ("--predictions", "oof_a.parquet", "oof_b.parquet")
    run_command("ensemble", *tables, "--weights", "fit", "--labels", "set", "--out", "ensemble.parquet")
    run_command("ensemble", *tables, "--weights", "ensemble.json", "--out", "ensemble_applied.parquet")
    run_command("stack", *tables, "--labels", "set", "--out", "stack", "--model.hidden", "4", "--model.max_epochs", "5")
    run_command("stack", *tables, "--apply", "stack", "--out", "stack_applied.parquet")
    space = "{lr: {sets: optim.lr, low: 0.001, high: 0.01, log: true}, " \
            "shift: {sets: canvas.placements.0.normalise.init_args.shift, low: 70, high: 90}}"  # fmt: skip
    search = ("--configs", "train.yaml", "--space", space, "--folds", "0", "--options", "{epochs: 1}")
    words = ("search", *shards, *search, "--num_trials", "2", "--out", "study", "--launch", program)
    status = out / "study/trials/0-001/fold-0/status.json"  # written a moment before the study is
    killed(begun(*words), lambda: status.is_file() and '"finished"' in status.read_text())
    assert len((out / "study/trials.csv").read_text().splitlines()) == 2
    remove(out)
    for path in out.rglob("environment.json"):  # holds the command
        path.write_text(path.read_text().replace(f"{checkout}/", ""))
    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow", "scipy", "timm", "torch", "zstandard")}
    (out / "made_with.json").write_text(json.dumps({"processor": processor(), **versions}, indent=1) + "\n")


def processor() -> str:
    """The family of this machine's processor: within one, equal programs give equal bytes."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    return " ".join(
        value.strip() for name, value in sorted(found.items()) if name.strip() in ("cpu family", "vendor_id")
    )


def remove(out: Path) -> None:
    """Remove what no test reads."""
    for folder in ("kaggle_set", "finished_run/checkpoints", "data_wide_run/checkpoints",
                   "staged_run/stages/first/checkpoints", "staged_run/stages/first/final"):  # fmt: skip
        shutil.rmtree(out / folder)
    for folder in ("data_wide_run", *(f"grid/{recipe}/{fold}" for recipe in ("a", "b") for fold in range(3)),
                   *(str(path.relative_to(out)) for path in out.glob("study/trials/*/fold-0"))):  # fmt: skip
        shutil.rmtree(out / folder / "checkpoints", ignore_errors=True)
        for weights in (out / folder).glob("*/*.safetensors"):
            weights.unlink()
    for pattern in (".*claim", "*.claim", "train.log", "*.log.1", "fold-*.log"):
        for path in out.rglob(pattern):
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
