"""Shipped training recipes as a user starts them, beside a plain loop of PyTorch and timm, in one run on one GPU.

python scripts/bench/recipes.py OUT [--recipes public_baseline sixteenth_place] [--num_recordings 400] [--json FILE]
Each recipe trains by `train.py` under torchrun, unmodified but for random weights and the number of epochs, eager and
compiled; images a second, the share of waiting for data and the memory come from metrics.jsonl, after the first steps.
The plain loop trains timm's model of the same name on one batch of random pictures that stays on the GPU, with the same
batch and precision, channels last, AdamW in one kernel: eager, and with torch.compile. Its batch norm sees the whole
batch. Shard sets of simulated recordings are made in OUT and kept. A row is written to FILE as soon as it is measured,
and a later call with the same FILE measures only what is missing in it.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional
from trainer import made, run

from hms_dist.config.load import load
from hms_dist.core.files import write_json
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.settings import TrainConfig

RENDER = {
    "public_baseline": "public_baseline", "sixteenth_place": "sixteenth_place", "seed_003": "seed_003",
    "seed_000_stage_1": "seed_001",
}  # fmt: skip
"""Training recipe -> recipe of its shard set."""
LOOPS = ("eager", "torch.compile")
NUM_STEPS = 20
"""Steps of a timed round of the plain loop."""


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("out", type=Path, help="folder for recordings, shard sets and runs")
    words.add_argument("--recipes", nargs="+", choices=RENDER, default=["public_baseline", "sixteenth_place"])
    words.add_argument("--modes", nargs="+", choices=["auto", "null", "default"], default=["auto", "default"])
    words.add_argument("--loops", nargs="*", choices=LOOPS, default=LOOPS, help="plain loops that are timed")
    words.add_argument("--num_recordings", type=int, default=400)
    words.add_argument("--workers", type=int, default=8, help="processes that simulate and render")
    words.add_argument("--epochs", type=int, default=2, help="epochs of the trainer's runs")
    words.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    words.add_argument("--words", nargs="*", default=[], help="further options of the runs, as name=value")
    words.add_argument("--warm_up_steps", type=int, default=20, help="first steps, which are not counted")
    words.add_argument("--rounds", type=int, default=3, help="rounds of the plain loop")
    words.add_argument("--json", type=Path, help="also write the figures there, and continue from it")
    return words


def main() -> None:
    """Measure each recipe, print a table."""
    given = parser().parse_args()
    found = measured(given)
    print("| recipe | system | images/s | waiting for data | GB of GPU memory |\n|---|---|--:|--:|--:|", flush=True)
    for name in given.recipes:
        rows = found.setdefault(name, {})
        shards = made(given, RENDER[name])
        for system, measure in systems(given, name, shards).items():
            if system not in rows:
                rows[system] = measure()
                if given.json:
                    write_json(given.json, {**where(given), "recipes": found})
            wait = f"{rows[system]['data_wait_share']:.2%}" if "data_wait_share" in rows[system] else ""
            cells = f"{rows[system]['images_per_s']:.1f} | {wait} | {rows[system]['gb']:.1f}"
            print(f"| {name} | {system} | {cells} |", flush=True)


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """The rows of an earlier call on the same kind of GPU, by recipe and system."""
    if not (given.json and given.json.exists()):
        return {}
    earlier = json.loads(given.json.read_text())
    if {key: earlier.get(key) for key in where(given)} != where(given):
        sys.exit(f"{given.json}: was measured with {earlier.get('gpu')} and torch {earlier.get('torch')}; give another")
    found: dict[str, Any] = earlier["recipes"]
    return found


def systems(given: argparse.Namespace, name: str, shards: Path) -> dict[str, Callable[[], dict[str, float]]]:
    """The measurements of a recipe by system: the trainer in each mode, and the plain loops."""
    found: dict[str, Callable[[], dict[str, float]]] = {
        f"hms_dist, compile_mode {mode}": partial(trained, given, name, shards, mode) for mode in given.modes
    }
    return found | {f"plain loop, {system}": partial(plain, given, name, shards, system) for system in given.loops}


def where(given: argparse.Namespace) -> dict[str, str]:
    """The GPU and the version of torch."""
    return {"gpu": torch.cuda.get_device_name() if given.device == "cuda" else "cpu", "torch": torch.__version__}


def trained(given: argparse.Namespace, name: str, shards: Path, mode: str) -> dict[str, float]:
    """Medians over the logged stretches of a run, after the first steps."""
    out = given.out / f"run-{name}-{mode}"
    words = ["--config", f"configs/train/{name}.yaml", "--model.weights", "none", "--epochs", str(given.epochs)]
    words += ["--compile_mode", mode, "--shards", str(shards), "--out", str(out)]
    words += [f"--{word}" for word in given.words]
    shutil.rmtree(out, ignore_errors=True)
    run([sys.executable, "-m", "torch.distributed.run", "--standalone", "train.py", *words], threads=4)
    lines = [line for line in read_metrics(out) if "images_per_s" in line]
    late = [line for line in lines if line["step"] > given.warm_up_steps] or lines[-1:]
    figures = {key: median(line[key] for line in late) for key in ("images_per_s", "data_wait_share")}
    return {**figures, "gb": median(line.get("gpu_memory_mb", 0) for line in late) / 1000}


def plain(given: argparse.Namespace, name: str, shards: Path, system: str) -> dict[str, float]:
    """Images a second and memory of the plain loop."""
    words = ["--config", f"configs/train/{name}.yaml", "--shards", str(shards), "--out", str(given.out / "none")]
    config = load(TrainConfig, [*words, *(f"--{word}" for word in given.words)])
    device = torch.device(given.device)
    return timed(plain_step(config, device, system), config.global_batch, device, given.rounds)


def plain_step(config: TrainConfig, device: torch.device, system: str) -> Any:
    """A step of the plain loop, as a function."""
    import timm

    torch.manual_seed(0)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    model = timm.create_model(config.model.name, in_chans=1, num_classes=6).to(device)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    images = torch.randn(config.global_batch, 1, config.canvas.height, config.canvas.width, device=device)
    targets = torch.rand(config.global_batch, 6, device=device).softmax(-1)
    if system == "torch.compile":
        model.compile()
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = functional.kl_div(model(images).float().log_softmax(-1), targets, reduction="batchmean")
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def timed(step: Any, batch: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Images a second of the median round, after one that is not counted, and the peak of memory."""
    seconds = []
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(rounds + 1):
        wait(device)
        begun = time.perf_counter()
        for _ in range(NUM_STEPS if device.type == "cuda" else 1):
            step()
        wait(device)
        seconds.append(time.perf_counter() - begun)
    num_steps = NUM_STEPS if device.type == "cuda" else 1
    gb = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return {"images_per_s": batch * num_steps / median(seconds[1:]), "gb": gb}


def wait(device: torch.device) -> None:
    """Wait for a GPU's work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
