"""One run on one, two, four and eight GPUs: the same run, weak and strong scaling, kills, seeds side by side.

python scripts/bench/scaling.py OUT [--worlds 1 2 4 8] [--parts ...] [--device cpu] [--json FILE]
Trains the shipped recipes by train.py under torchrun, unmodified but for random weights and what a part states, and
reads the records of the runs. Shard sets of simulated recordings are made in OUT and kept; runs are repeated. Parts:

same       losses of all steps at a learning rate of 1e-30 (fingerprints of rows and draws), and the first gradient
final      validation KL after the last epoch, by seed and number of ranks
weak       images/s with the recipe's batch on every rank
strong     images/s with the recipe's batch divided among the ranks
norms      the all-reduces of batch norms whose groups are split over several ranks: how many a step, and their time
kills      a rank killed, the launcher killed, the launcher stopped; resumed on the most and on the fewest ranks
seeds      one single-GPU run on each GPU at once, as `grid --number`, against one alone
launchers  accelerate launch against torchrun
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import scaling_same
import torch
from recipes import RENDER
from scaling_runs import Run
from trainer import made

from hms_dist.config.load import load
from hms_dist.core.files import write_json
from hms_dist.train.settings import TrainConfig


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("out", type=Path, help="folder for recordings, shard sets and runs")
    words.add_argument("--worlds", type=int, nargs="+", default=[1, 2], help="numbers of ranks, ascending")
    words.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    words.add_argument("--recipes", nargs="+", choices=RENDER, default=["public_baseline", "sixteenth_place"])
    words.add_argument("--num_recordings", type=int, default=500)
    words.add_argument("--workers", type=int, default=8, help="processes that simulate and render")
    words.add_argument("--epochs", type=int, default=4, help="epochs of the runs whose final KL is compared")
    words.add_argument("--timed_epochs", type=int, default=2, help="epochs of the runs that are timed")
    words.add_argument(
        "--num_seeds", type=int, default=4, help="seeds of the runs whose final KL is compared; 2 or more"
    )
    words.add_argument("--warm_up_steps", type=int, default=10, help="first steps, which the scaling does not count")
    words.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: small networks, over gloo")
    words.add_argument("--json", type=Path, help="also write the figures there")
    return words


def main() -> None:
    """Measure each part of each recipe, print it."""
    command = parser()
    given = command.parse_args()
    if given.num_seeds < 2:
        command.error(f"--num_seeds: expected at least 2, a spread needs two, found {given.num_seeds}")
    where = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if given.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {where}", flush=True)
    shutil.rmtree(given.out / "runs", ignore_errors=True)
    found: dict[str, Any] = {}
    for recipe in given.recipes:
        shards = made(given, RENDER[recipe])
        for part in given.parts:
            found.setdefault(recipe, {})[part] = PARTS[part](given, recipe, shards)
            print(f"{recipe}, {part}: {json.dumps(found[recipe][part], indent=1)}", flush=True)
            if given.json:  # after every part: a bench that is stopped keeps what it has measured
                write_json(given.json, {"where": where, "torch": torch.__version__, "found": found})


def config_of(recipe: str) -> TrainConfig:
    """Options of a shipped recipe."""
    return load(TrainConfig, ["--config", recipe, "--shards", "none", "--out", "none"])


def scaled(given: argparse.Namespace, recipe: str, shards: Path, *, weak: bool) -> dict[int, dict[str, float]]:
    """Images/s by number of ranks, and the share of the first one's times the number of ranks."""
    found: dict[int, dict[str, float]] = {}
    words = ("--epochs", str(given.timed_epochs), "--selection.rule", "all", "--log_every", "1")
    batch = config_of(recipe).global_batch if given.device == "cuda" else 8
    for world in given.worlds:
        name = f"{recipe}-{'weak' if weak else 'strong'}-{world}"
        rows = ("--global_batch", str(batch * world if weak else batch))
        found[world] = Run(given, name, recipe, shards, (*words, *rows)).whole(world).rates()
    first = given.worlds[0]
    for world, row in found.items():
        row["efficiency"] = row["images_per_s"] / found[first]["images_per_s"] * first / world
    return found


def weak(given: argparse.Namespace, recipe: str, shards: Path) -> dict[int, dict[str, float]]:
    """Scaling with the recipe's batch on every rank."""
    return scaled(given, recipe, shards, weak=True)


def strong(given: argparse.Namespace, recipe: str, shards: Path) -> dict[int, dict[str, float]]:
    """Scaling with the recipe's batch divided among the ranks."""
    return scaled(given, recipe, shards, weak=False)


def norms(given: argparse.Namespace, recipe: str, shards: Path) -> dict[int, dict[str, float]]:
    """All-reduces of split groups per step, forward and backward, and the time of one step's alone, by world."""
    found = {}
    for world in given.worlds[1:]:
        out = given.out / f"norms-{world}.json"
        run = Run(given, f"{recipe}-norms-{world}", recipe, shards, ("--json", str(out)))
        if run.start(world, program=[str(Path(__file__).with_name("scaling_norms.py"))]).wait():
            sys.exit(f"{run.name}: {run.log.read_text()[-3000:]}")
        found[world] = json.loads(out.read_text())
    return found


def seeds(given: argparse.Namespace, recipe: str, shards: Path) -> dict[str, float]:
    """Images/s of one run alone and of one run per GPU at once."""
    words = ("--epochs", str(given.timed_epochs), "--selection.rule", "all", "--log_every", "1")

    def together(number: int) -> float:
        runs = [
            Run(given, f"{recipe}-seed-{seed}-of-{number}", recipe, shards, (*words, "--seed", str(seed)), seed)
            for seed in range(number)
        ]
        processes = [run.start(1) for run in runs]
        codes = [process.wait() for process in processes]
        if any(codes):
            sys.exit("; ".join(run.log.read_text()[-1000:] for run in runs))
        return sum(run.rates()["images_per_s"] for run in runs)

    number = given.worlds[-1]
    alone, all_of_them = together(1), together(number)
    return {"alone": alone, f"{number} at once": all_of_them, "efficiency": all_of_them / alone / number}


PARTS = {
    "same": scaling_same.same_run, "launchers": scaling_same.launchers, "weak": weak, "strong": strong, "norms": norms,
    "kills": scaling_same.kills, "seeds": seeds, "final": scaling_same.final,
}  # fmt: skip

if __name__ == "__main__":
    main()
