"""Overhead of the whole trainer over a bare step: loader, canvas, augmentation, averages and records, on one GPU.

python scripts/bench/trainer.py OUT [--tasks tiny_vit efficientnet] [--num_recordings 400] [--device cpu] [--json FILE]
Trains with torch.compile (train.py under torchrun, one rank), augmentation on, reads images per second and the data
wait share from metrics.jsonl, and compares with steps of the same model on one batch that stays on the GPU: this
project's blocks for TinyViT, timm + torch.compile for EfficientNet-B0. Shard sets of simulated recordings are created
in OUT and kept; runs are repeated. --device cpu with few --num_recordings and a small --batch only shows that it runs,
uncompiled and in float32.
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bare_steps import NUM_ROUNDS, Setting, data, model_of, on_device, stepper, timed

from hms_dist.core.files import write_json
from hms_dist.train.folder.record import read_metrics

REPOSITORY = Path(__file__).parents[2]
COMMON = ["--model.weights", "none", "--fold", "none", "--reader_threads", "4"]
ON_GPU = ["--compile_mode", "default", "--precision", "bf16", "--log_every", "10"]
ON_CPU = ["--compile_mode", "null", "--precision", "float32", "--log_every", "1"]


@dataclass(frozen=True)
class Task:
    """A recipe, and the batch that is its step and its group."""

    render: str
    train: str
    batch: int
    epochs: int
    words: tuple[str, ...] = ()


TASKS = {
    "efficientnet": Task(
        "public_baseline",
        "public_baseline",
        128,
        5,
        ("--flip_probability", "0.5", "--augment", "configs/augment/peers.yaml"),
    ),
    "tiny_vit": Task(
        "sixteenth_place", "sixteenth_place", 32, 1, ("--selection.rule", "all", "--selection.min_votes", "1")
    ),
}


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("out", type=Path, help="folder for recordings, shard sets and runs")
    words.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    words.add_argument("--num_recordings", type=int, default=2000)
    words.add_argument("--workers", type=int, default=8, help="processes that simulate and render")
    words.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="cuda or cpu")
    words.add_argument("--epochs", type=int, help="epochs of the trainer's run (default: the task's)")
    words.add_argument("--batch", type=int, help="rows of a step (default: the task's)")
    words.add_argument("--warm_up_steps", type=int, default=15, help="first steps, which are not counted")
    words.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="rounds of eight bare steps")
    words.add_argument("--json", type=Path, help="also write the figures there")
    return words


def main() -> None:
    """Measure each task, print a table."""
    given = parser().parse_args()
    found: dict[str, dict[str, float]] = {}
    print("| task | batch | bare step, images/s | trainer, images/s | trainer / bare | waiting for data |")
    print("|---|--:|--:|--:|--:|--:|")
    setting = Setting(given.device, rounds=given.rounds)
    for name in given.tasks:
        task = TASKS[name]
        task = replace(task, batch=given.batch or task.batch, epochs=given.epochs or task.epochs)
        shards = made(given, task.render)
        row = found[name] = trained(given, given.out / f"run-{name}", task, shards)
        print(f"{name}, trainer: {row}", file=sys.stderr, flush=True)  # a bare step takes minutes to compile
        row |= bare(name, task.batch, setting)
        row["ratio"] = row["images_per_s"] / row["bare"]
        cells = f"{row['bare']:.1f} | {row['images_per_s']:.1f} | {row['ratio']:.3f} | {row['data_wait_share']:.2%}"
        print(f"| {name} | {task.batch} | {cells} |", flush=True)
    if given.json:
        write_json(given.json, {"gpu": setting.device_name, "torch": torch.__version__, "tasks": found})


def made(given: argparse.Namespace, recipe: str) -> Path:
    """The shard set of a render recipe, from recordings that all tasks share."""
    recordings, shards = given.out / "data", given.out / recipe
    workers = ["--workers", str(given.workers)]
    if not (recordings / "train.csv").exists():
        hms_dist("simulate", "--out", recordings, "--num_recordings", given.num_recordings, "--seed", 1, *workers)
    hms_dist("render", "--data", recordings, "--out", shards, "--config", f"configs/render/{recipe}.yaml", *workers)
    return shards


def hms_dist(*words: object) -> None:
    """One command of hms-dist."""
    run([sys.executable, "-m", "hms_dist", *map(str, words)], threads=1)


def trained(given: argparse.Namespace, out: Path, task: Task, shards: Path) -> dict[str, float]:
    """Medians over the logged stretches of a run, after the first steps."""
    words = ["--config", f"configs/train/{task.train}.yaml", *COMMON, *task.words, "--epochs", str(task.epochs)]
    words += ON_CPU if given.device.type == "cpu" else ON_GPU
    words += ["--global_batch", str(task.batch), "--group_size", str(task.batch)]
    words += ["--shards", str(shards), "--out", str(out)]
    shutil.rmtree(out, ignore_errors=True)
    run([sys.executable, "-m", "torch.distributed.run", "--standalone", "train.py", *words], threads=4)
    lines = [line for line in read_metrics(out) if "images_per_s" in line and line["step"] > given.warm_up_steps]
    return {name: median(line[name] for line in lines) for name in ("images_per_s", "data_wait_share")}


def run(command: list[str], threads: int) -> None:
    """Run a command in the checkout; if it fails, so does the bench, with the end of its errors."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-3000:]}")


def bare(name: str, batch: int, setting: Setting) -> dict[str, float]:
    """Images a second of steps on one batch, and GiB of memory."""
    import timm

    is_compiled = setting.device.type == "cuda"
    if name == "tiny_vit":
        model = model_of("hms_dist + compile" if is_compiled else "hms_dist eager", setting)
    else:
        setting = replace(setting, size=(512, 512))
        model = on_device(timm.create_model("tf_efficientnet_b0", in_chans=1, num_classes=6), setting)
        if is_compiled:
            model.compile(dynamic=False)
    row: dict[str, Any] = timed(stepper(model, *data(batch, setting)), batch, setting)
    memory = {"bare_gib": float(row["GiB"])} if "GiB" in row else {}
    return {"bare": float(row["images/s"]), **memory}


if __name__ == "__main__":
    main()
