"""Samples per second of this package's loader and of its peers, on the same samples.

python scripts/bench/loader.py [--device cuda] [--rounds 5] [--seconds 1] [--num_rows 256] [--out build/loader]
[--loaders NAME ...] [--no_install] [--json FILE]. 256 canvases of 640 x 1920 from simulated recordings, batches of 16,
in order, with 0, 1 and 2 workers (processes; threads in this package, FFCV and SPDL). Each loader has a process of its
own and is first verified on every pixel of every row; then they take turns, and medians of the rounds are reported.
The error output shows each step and its figures. On the host a batch is only touched by reading one byte: peers deliver
the finished u8 canvas, this package its packed panels, verified and decoded. With --device cuda a batch counts when its
finished float canvas is on the GPU, for all loaders, and a second table has the host's time for canvas and augmentation
of a pass, operation by operation and as a CUDA graph.

Peers whose requirements conflict with ours are installed into a virtual environment under --out (loader_peers.txt).
With --no_install there is none, and those that are not installed are reported as such.
"""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from loader_data import SAMPLES_PER_SHARD, make_samples, say
from loader_table import OURS, lines
from rounds import machine, write_json

HERE = Path(__file__).parent
NAMES = {
    "hms_dist": (0, 1, 2), "FFCV": (1, 2), "SPDL": (1, 2), "LitData": (0, 1, 2),
    "MosaicML streaming": (0, 1, 2), "Dataset of .npy": (0, 1, 2), "WebDataset raw": (0, 1, 2),
    "WebDataset PNG": (0, 1, 2), "read() of our panels": (0,), "read() of u8 canvases": (0,),
}  # fmt: skip
"""Contestants, and the supported numbers of workers: FFCV and SPDL need at least one thread."""
PATIENCE_S = 120
"""Seconds for one answer: a loader that hangs is reported."""
Measured = dict[str, dict[int, list[dict[str, float]]]]


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--device", default="cpu", help="where the finished canvas is wanted; cpu: not at all")
    words.add_argument("--rounds", type=int, default=5, help="times that every loader is measured")
    words.add_argument("--seconds", type=float, default=1, help="shortest time of one measurement, whole epochs")
    words.add_argument("--num_rows", type=int, default=256, help="samples; at least 64, a tar for each of two workers")
    words.add_argument("--out", type=Path, default=Path("build/loader"), help="folder for samples; kept")
    words.add_argument("--loaders", nargs="+", choices=NAMES, default=list(NAMES), help="those that take part")
    words.add_argument("--json", type=Path, help="write every number to this file")
    words.add_argument("--no_install", action="store_true", help="measure only what is installed beside this package")
    return words


def main() -> None:
    options = parser()
    arguments = options.parse_args()
    if arguments.num_rows < 2 * SAMPLES_PER_SHARD:
        options.error(f"--num_rows: expected at least {2 * SAMPLES_PER_SHARD}, found {arguments.num_rows}")
    folder: Path = arguments.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    make_samples(folder / f"samples-{arguments.num_rows}", arguments.num_rows)
    python = sys.executable if arguments.no_install else peers_python(folder / "peers")
    words = [str(folder / f"samples-{arguments.num_rows}"), str(arguments.seconds), arguments.device]
    processes = {name: Process(python, name, words) for name in arguments.loaders}
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        reasons = pool.map(Process.check, processes.values())
        missing = {name: why for name, why in zip(processes, reasons, strict=True) if why}
    graphs = arguments.device == "cuda" and OURS in processes
    host_ms = {}
    if graphs:
        host_ms = processes[OURS].ask("host", 0)
        say(f"host's milliseconds of a pass: {host_ms}")
    measured = in_turns(processes, arguments.rounds, missing)
    report = {
        "host_ms": host_ms,
        "machine": machine(("torch", "numpy", "webdataset", "zstandard")),
        "device": arguments.device,
        "load": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "missing": missing,
        "loaders": {name: summary(rounds) for name, rounds in measured.items()},
    }
    print("\n".join(lines(report)))
    if arguments.json:
        write_json(arguments.json, report)


def peers_python(folder: Path) -> str:
    """Interpreter of a virtual environment on top of this one, with the peers' packages; created if missing."""
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        paths = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        ours = sysconfig.get_path("purelib")
        Path(paths.strip(), "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        for line in (HERE / "loader_peers.txt").read_text().splitlines():
            if line and not line.startswith(
                "#"
            ):  # one by one: a package that does not install is reported, and the others continue
                subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", line], check=False)
        (folder / "complete").touch()
    return str(python)


class Process:
    """A loader in its own process."""

    def __init__(self, python: str, name: str, words: list[str]) -> None:
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
        }  # fmt: skip
        if words[-1] == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # loaders pin memory or copy to a GPU where there is one
        self.name = name
        self._process = subprocess.Popen(
            [python, str(HERE / "loader_process.py"), name, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        )  # fmt: skip

    def ask(self, job: str, workers: int) -> Any:
        """Return its answer. Raises OSError if it failed (the reason is in its error output) or hangs, and kills it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{job} {workers}\n")
        self._process.stdin.flush()
        there, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if there else ""
        if not line:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise OSError(f"{job} with {workers} workers " + ("failed (see the error output)" if there else "hung"))
        return json.loads(line)

    def check(self) -> str | None:
        """Verify its pixels; return the reason why it cannot take part, or None. A wrong pixel of this package's loader
        ends the bench."""
        try:
            for workers in NAMES[self.name]:
                if why_not := self.ask("check", workers):
                    return str(why_not)
                say(f"{self.name}, {workers} workers: checked")
        except OSError as why:
            if self.name.startswith("hms_dist"):
                raise
            return str(why)
        return None


def in_turns(processes: Mapping[str, Process], rounds: int, missing: dict[str, str]) -> Measured:
    """Measure every loader with every number of workers, round by round; one that fails is added to `missing`."""
    measured: Measured = {name: {workers: [] for workers in NAMES[name]} for name in processes}
    for _ in range(rounds):
        for name in processes:
            for workers in NAMES[name] if name not in missing else ():
                try:
                    found = processes[name].ask("measure", workers)
                except OSError as why:
                    missing[name] = str(why)
                    break
                measured[name][workers].append(found)
                say(f"{name}, {workers} workers: " + ", ".join(f"{key} {value:,.2f}" for key, value in found.items()))
    return {name: found for name, found in measured.items() if name not in missing}


def summary(rounds: Mapping[int, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds, by number of workers; the first batch also in the fresh process."""
    medians = {
        str(workers): {key: median(one[key] for one in values) for key in values[0]}
        for workers, values in rounds.items()
    }
    return {"workers": medians, "fresh_first_batch_s": next(iter(rounds.values()))[0]["first_batch_s"]}


if __name__ == "__main__":
    main()
