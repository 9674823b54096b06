"""Whether a recipe is the same run on any number of ranks: rows, gradients, final KL, launchers, kills and resumes.

At a learning rate of 1e-30 the weights do not move, so the loss of a step in float32 is a fingerprint of its rows and
of every draw: equal losses of all steps are equal rows and draws.
"""

import argparse
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scaling_runs import Run, end, kill, ranks_of

from hms_dist.train.folder.record import read_metrics

FIXED = (
    "--precision",
    "float32",
    "--optim.lr",
    "1e-30",
    "--epochs",
    "1",
    "--log_every",
    "1",
    "--selection.rule",
    "all",
)
"""Options of a run whose losses are fingerprints."""


def same_run(given: argparse.Namespace, recipe: str, shards: Path) -> dict[str, Any]:
    """Losses of all steps against one rank's, and the gradient of the first step, by precision."""
    runs = {world: Run(given, f"{recipe}-fixed-{world}", recipe, shards, FIXED).whole(world) for world in given.worlds}
    found: dict[str, Any] = {"losses": compared(runs)}
    for precision in ("float32", "bf16") if given.device == "cuda" else ("float32",):
        first = {world: gradient(given, recipe, shards, world, precision) for world in given.worlds}
        one = first[given.worlds[0]]
        found[f"gradient, {precision}"] = {
            world: float((other - one).norm() / one.norm()) for world, other in first.items()
        }
    return found


def compared(runs: dict[int, Run]) -> dict[int, dict[str, float]]:
    """Number of steps and largest relative difference of a step's loss, against the first run."""
    expected, found = next(iter(runs.values())).losses(), {}
    for world, run in runs.items():
        losses = run.losses()
        shared = expected.keys() & losses.keys()
        found[world] = {
            "steps": len(losses),
            "steps_missing": len(expected.keys() ^ losses.keys()),
            "relative_difference": max((abs(losses[k] - expected[k]) / expected[k] for k in shared), default=0.0),
        }
    return found


def gradient(given: argparse.Namespace, recipe: str, shards: Path, world: int, precision: str) -> torch.Tensor:
    """Gradient of the first step as one vector: AdamW's first moment after it, ten times. The run is then stopped."""
    words = ("--precision", precision, "--epochs", "1", "--selection.rule", "all")
    kept = ("--checkpoint_every", "1", "--keep_checkpoints", "1000")
    run = Run(given, f"{recipe}-first-{precision}-{world}", recipe, shards, (*words, *kept))
    process, path = run.start(world), run.out / "checkpoints/step-00000001"
    run.until(process, path.is_dir)
    saved = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
    end(process, signal.SIGTERM)
    shutil.rmtree(run.out)
    states = saved["optimizer"]["state"]
    return torch.cat([states[key]["exp_avg"].flatten().double() * 10 for key in sorted(states)])


def final(given: argparse.Namespace, recipe: str, shards: Path) -> dict[str, Any]:
    """Validation KL after the last epoch by seed and world; these runs are not timed, and run side by side."""

    def last_kl(job: tuple[int, int]) -> float:
        world, seed = job
        words = ("--seed", str(seed), "--fold", "0", "--epochs", str(given.epochs))
        run = Run(given, f"{recipe}-final-{seed}-on-{world}", recipe, shards, words, first_gpu=seed).whole(world)
        lines = [line for line in read_metrics(run.out) if "val_kl" in line]
        return float(lines[-1]["val_kl"])

    jobs = [(world, seed) for world in given.worlds for seed in range(given.num_seeds)]
    with ThreadPoolExecutor(len(jobs) if given.device == "cuda" else 1) as pool:
        values = dict(zip(jobs, pool.map(last_kl, jobs), strict=True))
    by_world = {world: [values[world, seed] for seed in range(given.num_seeds)] for world in given.worlds}
    return {
        world: {"val_kl": kls, "mean": mean(kls), "deviation_of_seeds": stdev(kls)} for world, kls in by_world.items()
    }


def launchers(given: argparse.Namespace, recipe: str, shards: Path) -> dict[str, Any]:
    """Losses under accelerate launch against those under torchrun, on the most ranks."""
    world = 2 if given.device == "cpu" else given.worlds[-1]  # accelerate's file for the CPU starts two
    runs = [
        Run(given, f"{recipe}-under-{launcher}", recipe, shards, FIXED).whole(world, launcher)
        for launcher in ("torchrun", "accelerate")
    ]
    return {"accelerate": compared(dict(enumerate(runs)))[1]}


def kills(given: argparse.Namespace, recipe: str, shards: Path) -> dict[str, Any]:
    """Stop a run on the most ranks at a third of its steps, in four ways, and resume it on another number.

    Losses of the resumed run against a run that was not stopped; seconds until the launcher ended; seconds from the
    start of the resume to its first step.
    """
    many, few = given.worlds[-1], given.worlds[0]
    words = (*FIXED, "--epochs", "3", "--checkpoint_every", "2")
    whole = Run(given, f"{recipe}-not-stopped", recipe, shards, words).whole(many)
    found = {}
    for way in ("rank killed", "launcher killed", "launcher SIGTERM"):
        for resumed_on in (many, few):
            run = Run(given, f"{recipe}-{way.replace(' ', '-')}-{resumed_on}", recipe, shards, words)
            found[f"{way}, resumed on {resumed_on}"] = resumed(run, way, (many, resumed_on), whole)
    return found


def resumed(run: Run, way: str, worlds: tuple[int, int], whole: Run) -> dict[str, float]:
    """Stop a run on the first of two worlds in one way, resume it on the second, and compare."""
    process, stop_at = run.start(worlds[0]), max(max(whole.losses()) // 3, 3)
    run.until(process, lambda: run.num_logged() >= stop_at)
    ranks = ranks_of(process.pid)
    if way == "rank killed":
        kill(ranks[-1])
        begun = time.monotonic()
        process.wait()
        ended_s = time.monotonic() - begun
    else:
        ended_s = end(process, signal.SIGKILL if way == "launcher killed" else signal.SIGTERM)
    stopped_at, begun = run.num_logged(), time.monotonic()
    again = run.start(worlds[1])
    num_lines = len(run.lines())
    run.until(again, lambda: len(run.lines()) > num_lines)
    first_step_s = time.monotonic() - begun
    if again.wait():
        raise SystemExit(f"{run.name}: {run.log.read_text()[-3000:]}")
    difference = compared({0: whole, 1: run})[1]
    return {"launcher_ended_s": ended_s, "stopped_at": stopped_at, "first_step_s": first_step_s, **difference}
