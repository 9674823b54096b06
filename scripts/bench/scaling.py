"""One run on one GPU and on two: the same rows, the same gradients, twice the images.

python scripts/bench/scaling.py SHARDS OUT [--ranks 1 2] [--device cpu] [--json FILE]. Trains under torchrun and reads
the records of the runs. Equality: EfficientNet-Lite0, B = 32 in groups of 16 for any number of ranks; losses of the
first steps, and the gradients of the first, which AdamW's first moment holds after one step. Weak scaling: the 16th
place's recipe, 24 rows per rank, images per second at its logged steps after the first ten. Final: the KL on unseen
patients after the last epoch, by seed, for both numbers of ranks; these runs are not timed and run in parallel.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from hms_dist.core.files import write_json
from hms_dist.train.folder.record import read_metrics

REPOSITORY = Path(__file__).parents[2]
EQUAL = ["--config", "configs/train/proof_efficientnet.yaml"]
WEAK = ["--config", "configs/train/sixteenth_place.yaml", "--model.weights", "none", "--epochs", "1"]
WEAK += ["--selection.rule", "all"]
WEAK += ["--selection.min_votes", "1", "--ema.decay", "null", "--ema.warmup", "false", "--ema.every", "step"]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path, help="a shard set of configs/render/sixteenth_place.yaml")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--ranks", type=int, nargs=2, default=[1, 2], help="the two worlds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--epochs", type=int, default=4, help="of the runs whose final KL is compared")
    parser.add_argument("--num_seeds", type=int, default=4, help="of these runs, in each world; at least 2")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: float32, one thread a rank")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step where worlds are compared; two groups")
    parser.add_argument("--rows_a_rank", type=int, default=24, help="rows of a rank's step for the scaling")
    parser.add_argument("--warm_up_steps", type=int, default=10, help="first steps, which the scaling does not count")
    return parser


def main() -> None:
    """Run, compare, print."""
    words = parser()
    given = words.parse_args()
    if given.num_seeds < 2:
        words.error(f"--num_seeds: expected at least 2, for there is no spread of one, found {given.num_seeds}")
    where = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if given.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {where}", flush=True)
    found = {}
    for name in given.parts:
        found[name] = PARTS[name](given)
        print(name, json.dumps(found[name], indent=2), flush=True)
    if given.json:
        write_json(given.json, found)


def equality(given: argparse.Namespace) -> dict[str, Any]:
    """Largest difference of the first losses, and of the first gradient relative to its norm, by precision."""
    found = {}
    for precision in ("float32", "bf16") if given.device == "cuda" else ("float32",):
        words = [
            *EQUAL,
            *grouped(given),
            "--precision",
            precision,
            "--epochs",
            "1",
            "--checkpoint_every",
            "1",
            "--log_every",
            "1",
        ]
        words += ["--keep_checkpoints", "10000"]
        runs = [train(given, f"equal-{precision}-{ranks}", ranks, words) for ranks in given.ranks]
        one, two = ([line["loss"] for line in read_metrics(run) if "loss" in line] for run in runs)
        first, second = (moments(run) for run in runs)
        found[precision] = {
            "first_loss_difference": abs(one[0] - two[0]),
            "five_losses_difference": max(abs(a - b) for a, b in zip(one[:5], two[:5], strict=True)),
            "gradient_relative_difference": float((first - second).norm() / first.norm()),
        }
    return found


def weak_scaling(given: argparse.Namespace) -> dict[str, Any]:
    """Images a second by ranks, and the share of perfect scaling."""
    rates = {}
    for ranks in given.ranks:
        words = [*WEAK, "--global_batch", str(given.rows_a_rank * ranks)]
        if given.device == "cuda":
            words += ["--log_every", "5"]
        else:
            words += ["--precision", "float32", "--group_size", str(given.rows_a_rank), "--log_every", "1"]
        run = train(given, f"weak-{ranks}", ranks, words)
        lines = [line for line in read_metrics(run) if "images_per_s" in line and line["step"] > given.warm_up_steps]
        rates[ranks] = median(line["images_per_s"] for line in lines)
    few, many = given.ranks
    return {"images_per_s": rates, "efficiency": rates[many] / rates[few] * few / many}


def final(given: argparse.Namespace) -> dict[str, Any]:
    """Validation KL after the last epoch: every seed in both worlds, and how far apart seeds and worlds are."""
    words = [*EQUAL, *grouped(given), "--epochs", str(given.epochs)]
    words += ["--precision", "float32"] if given.device == "cpu" else []

    def last_kl(job: tuple[int, int]) -> float:
        ranks, seed = job
        run = train(given, f"final-{seed}-on-{ranks}", ranks, [*words, "--seed", str(seed)], first_gpu=seed)
        return next(float(line["val_kl"]) for line in reversed(read_metrics(run)) if "val_kl" in line)

    jobs = [(ranks, seed) for ranks in given.ranks for seed in range(given.num_seeds)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        kls = list(pool.map(last_kl, jobs))
    few, many = kls[: given.num_seeds], kls[given.num_seeds :]
    return {
        "val_kl": dict(zip(given.ranks, (few, many), strict=True)),
        "mean": [mean(few), mean(many)],
        "deviation_of_seeds": [stdev(few), stdev(many)],
        "largest_difference_of_worlds": max(abs(a - b) for a, b in zip(few, many, strict=True)),
        "largest_difference_of_seeds": max(few) - min(few),
    }


PARTS = {"weak_scaling": weak_scaling, "equality": equality, "final": final}


def grouped(given: argparse.Namespace) -> list[str]:
    """A step of two groups, whatever the number of ranks."""
    return ["--global_batch", str(given.batch), "--group_size", str(given.batch // 2)]


def moments(run: Path) -> torch.Tensor:
    """First moments of the optimiser after one step, as one vector: a tenth of the gradient."""
    saved = torch.load(run / "checkpoints/step-00000001/optimizer.pt", weights_only=True, map_location="cpu")
    states = saved["optimizer"]["state"]
    return torch.cat([states[key]["exp_avg"].flatten().double() for key in sorted(states)])


def train(given: argparse.Namespace, name: str, ranks: int, words: list[str], first_gpu: int = 0) -> Path:
    """One run; its folder. The first rank's GPU counts round the machine's."""
    out = given.out / name
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command = [*torchrun, "train.py", *words, "--shards", str(given.shards), "--out", str(out)]
    if given.device == "cuda":
        gpus = ",".join(str((first_gpu + rank) % torch.cuda.device_count()) for rank in range(ranks))
        environment = {**os.environ, "OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": gpus}
    else:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-3000:]}")
    print(f"{name}: done", flush=True)
    return out


if __name__ == "__main__":
    main()
