"""Runs of train.py on a chosen number of ranks, for scaling.py: start, wait, interrupt, and read their records."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from hms_dist.train.folder.record import read_metrics

REPOSITORY = Path(__file__).parents[2]
LOOK_EVERY_S = 0.05
LAUNCHERS = {
    "torchrun": ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "{ranks}"),
    "accelerate": ("-m", "accelerate.commands.launch", "--num_processes", "{ranks}", "--num_machines", "1"),
}
"""Launcher -> words after the Python interpreter."""
ON_CPU = ("--config", "small", "--num_folds", "3", "--global_batch", "8", "--group_size", "8")
"""Options of every run without a GPU: a step of 8 rows, which is one group, with a small network in float32."""


@dataclass(frozen=True)
class Run:
    """One run: its folder and the words of its command."""

    given: argparse.Namespace
    name: str
    recipe: str
    shards: Path
    words: tuple[str, ...] = ()
    first_gpu: int = 0

    @property
    def out(self) -> Path:
        """Run folder."""
        return Path(self.given.out) / "runs" / self.name

    def start(self, num_ranks: int, launcher: str = "torchrun", program: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start the run on `num_ranks` ranks; a run folder that exists is resumed. `program` replaces train.py."""
        launch = [word.format(ranks=num_ranks) for word in LAUNCHERS[launcher]]
        is_cpu = self.given.device == "cpu"
        if launcher == "accelerate":
            config = ["--config_file", "configs/accelerate/cpu2.yaml"] if is_cpu else ["--mixed_precision", "no"]
            launch += [*config, *(["--multi_gpu"] if num_ranks > 1 and not is_cpu else [])]
        options = ["--config", self.recipe, *(ON_CPU if is_cpu else ("--model.weights", "none"))]
        options += [*self.words, "--shards", str(self.shards), "--out", str(self.out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1" if is_cpu else "4"}
        if is_cpu:
            environment |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "1"}
        else:
            gpus = [(self.first_gpu + rank) % torch.cuda.device_count() for rank in range(num_ranks)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, *launch, *(program or ["train.py"]), *options],
                cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True,
                start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        """Output of the launcher and the ranks, beside the run folder."""
        return self.out.with_suffix(".log")

    def whole(self, num_ranks: int, launcher: str = "torchrun") -> "Run":
        """Run to the end, and return the run; a failure ends the bench with the end of the log."""
        if self.start(num_ranks, launcher).wait():
            sys.exit(f"{self.name}: {self.log.read_text()[-3000:]}")
        print(f"{self.name} on {num_ranks}: done", flush=True)
        return self

    def until(self, process: "subprocess.Popen[str]", is_reached: Callable[[], bool]) -> None:
        """Wait until `is_reached`; if the run ends earlier, the bench ends with its log."""
        while not is_reached():
            if process.poll() is not None and not is_reached():
                sys.exit(f"{self.name}: ended too early: {self.log.read_text()[-3000:]}")
            time.sleep(LOOK_EVERY_S)

    def num_logged(self) -> int:
        """Number of the last logged step; 0 before the first."""
        steps = [line["step"] for line in self.lines()]
        return steps[-1] if steps else 0

    def lines(self) -> list[dict[str, Any]]:
        """Logged steps."""
        if not (self.out / "metrics.jsonl").exists():
            return []
        return [line for line in read_metrics(self.out) if "loss" in line]

    def losses(self) -> dict[int, float]:
        """Step -> loss; for a step that was repeated after a resume, the last one."""
        return {line["step"]: line["loss"] for line in self.lines()}

    def rates(self) -> dict[str, float]:
        """Median images/s and share of waiting for data, over the logged stretches after the first steps."""
        lines = [line for line in self.lines() if "images_per_s" in line]
        late = [line for line in lines if line["step"] > self.given.warm_up_steps] or lines[-1:]
        return {name: median(line[name] for line in late) for name in ("images_per_s", "data_wait_share")}


def end(process: "subprocess.Popen[str]", signal_number: int) -> float:
    """Send a signal to the launcher, wait for it, and return the seconds until it ended."""
    begun = time.monotonic()
    process.send_signal(signal_number)
    process.wait()
    return time.monotonic() - begun


def ranks_of(launcher: int) -> list[int]:
    """Process ids of the ranks that a launcher started, in order of their start."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True, check=False)
    return sorted(map(int, listed.stdout.split()))


def kill(pid: int) -> None:
    """Kill a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
