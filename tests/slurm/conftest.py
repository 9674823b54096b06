"""A real Slurm of two nodes on this machine, started for these tests, and the jobs they submit to it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

import pytest

from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.config.load import load
from hms_dist.train.folder.stop import LOOK_EVERY_S

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE")
LIMIT_S = 240
BIN = Path(sys.executable).parent


class Cluster:
    """The local Slurm, as a user at its command line."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder, self.repository = folder, repository
        self.setup = [f"export PATH={BIN}:$PATH PYTHONPATH={repository} TMPDIR={folder} look_every_s=0.2"]
        self.port = _free_ports()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "LOCAL_SLURM_PORT": str(self.port),
        }

    def give_compiled(self, code: Path) -> None:
        """Let every job find this machine code in its cache, which is its own."""
        cache = "$TMPDIR/hms-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
        self.setup.append(f"[ -z $SLURM_JOB_ID ] || {{ mkdir -p {cache} && cp -r {code} {cache}/numba; }}")

    def start(self) -> subprocess.CompletedProcess[str]:
        return self._local_slurm("start")

    def stop(self) -> None:
        self._local_slurm("stop")

    def call(self, *words: object) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.repository,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def submit(self, job: str, logs: Path, *words: object, sbatch: tuple[str, ...] = (), **options: object) -> str:
        """Submit the script that configs/slurm/local.yaml gives for this checkout; the job's number."""
        logs.mkdir(exist_ok=True)
        given = ["--config", str(self.repository / "configs/slurm/local.yaml"), "--job", job]
        words_of_options = [f"--{name.replace('__', '.')}={value}" for name, value in options.items()]
        text = script(load(Sbatch, [*given, f"--setup={self.setup}", *words_of_options]))
        path = logs / f"{job}.sbatch"
        path.write_text(text)
        array = "%A_%a" if "#SBATCH --array" in text else "%j"
        found = self.call(
            "sbatch", "--parsable", f"--output={logs}/{job}-{array}.log", *sbatch, path, *words
        )  # fmt: skip
        return found.strip()

    def show(self, job: str) -> dict[str, str]:
        """The scheduler's record of a job or an array task."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "--oneliner", "show", "job", job)))

    def wait(self, until: Callable[[], object], logs: Path, limit_s: float = LIMIT_S) -> None:
        """Wait until a condition holds; on failure, say everything that was logged."""
        began = time.monotonic()
        while not until():
            if time.monotonic() - began > limit_s:
                pytest.fail(f"waited {limit_s} s in vain\n{self.account(logs)}")
            time.sleep(0.2)

    def end(self, job: str, logs: Path, limit_s: float = LIMIT_S) -> dict[str, str]:
        """Wait for the end of a job, which must be a good one."""
        self.wait(lambda: self.show(job)["JobState"] in ENDED, logs, limit_s)
        found = self.show(job)
        assert found["JobState"] == "COMPLETED", self.account(logs)
        return found

    def account(self, logs: Path) -> str:
        """The queue, the jobs' logs and the daemons' logs."""
        return "\n".join([self.call("squeue"), self.call("sinfo"), self.logs(*logs.rglob("*.log"))])

    def logs(self, *more: Path) -> str:
        """The last lines of some files and of the daemons' logs."""
        parts = [f"== {path}\n{_last_lines(path)}" for path in [*sorted(more), *sorted(self.folder.glob("logs/*"))]]
        return "\n".join(parts)

    def daemons(self, node: str) -> set[int]:
        """A node's slurmd and its job steps' daemons."""
        log, found = str(self.folder / f"logs/slurmd-{node}.log"), set()
        for entry in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if os.readlink(entry) == log:
                    found.add(int(entry.parts[2]))
        return found

    def kill(self, pids: Iterable[int]) -> None:
        """SIGKILL what there still is of these processes; what they began is orphaned."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, **variables: str) -> list[int]:
        """Processes of this Slurm's jobs whose environment holds these variables."""
        wanted = {f"{name}={value}".encode() for name, value in variables.items()}
        wanted.add(f"SLURM_CONF={self.folder / 'slurm.conf'}".encode())
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            pid = int(entry.parts[2])
            if wanted <= set(_read(pid, "environ").split(b"\0")):
                found.append(pid)
        return found

    def trainings(self, **variables: str) -> list[int]:
        """The training processes whose environment holds these variables."""
        return [pid for pid in self.processes(**variables) if _is_rank(self.command_line(pid))]

    def training(self, **variables: str) -> int:
        """The one training process whose environment holds these variables."""
        found = self.trainings(**variables)
        assert len(found) == 1, found
        return found[0]

    def command_line(self, pid: int) -> bytes:
        """That of a process; empty for one that has ended, collected or not."""
        return _read(pid, "cmdline")

    def parent(self, pid: int) -> int:
        """The process that a process belongs to; 0 for one that is gone."""
        words = _read(pid, "stat").rpartition(b")")[2].split()
        return int(words[1]) if words else 0

    def awaits(self, pid: int, number: signal.Signals) -> bool:
        """Whether a process that sleeps has got a signal."""
        pending = re.search(rb"ShdPnd:\s*(\w+)", _read(pid, "status"))
        return pending is not None and bool(int(pending[1], 16) >> (number - 1) & 1)

    @contextmanager
    def asleep(self, pid: int) -> Iterator[None]:
        """Stop a process while inside, so that what happens there finds it at one step."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def asleep_when(self, until: Callable[[], object], logs: Path, **variables: str) -> Iterator[int]:
        """Stop the training process within 20 ms of a condition, however fast its steps are; its number.

        It sleeps for as long as it lets pass between two looks for the file `stop`: its next step finds it.
        """
        self.wait(lambda: self.trainings(**variables), logs)
        pid = self.training(**variables)
        began = time.monotonic()
        while True:
            with self.asleep(pid):
                if until():
                    yield pid
                    time.sleep(LOOK_EVERY_S)
                    return
            if time.monotonic() - began > LIMIT_S or not self.command_line(pid):
                pytest.fail(f"waited in vain for the training process {pid}\n{self.account(logs)}")
            time.sleep(0.02)

    def _local_slurm(self, action: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.repository / "scripts/local_slurm.sh"), action, str(self.folder)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=120)


def _read(pid: int, name: str) -> bytes:
    """Content of /proc for a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _is_rank(line: bytes) -> bool:
    """hms-dist train, and neither the launcher or grid that starts it, nor its shell."""
    words = line.split(b"\0")
    return b"train" in words and not any(word.endswith(b"accelerate") for word in words)


def _last_lines(path: Path, number: int = 60) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-number:])


def _free_ports() -> int:
    """The first of three neighbouring ports that nobody listens to."""
    for _ in range(100):
        first = SystemRandom().randrange(12000, 19000)
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for number, open_socket in enumerate((one, two, three)):
                    open_socket.bind(("", first + number))
            except OSError:
                continue
            return first
    raise OSError("no free ports")


@pytest.fixture(scope="session")
def compiled(shared, recordings, shard_set, small_file, repository, tmp_path_factory):
    """The machine code of rendering and training, so that not every job recompiles it."""

    def make(folder: Path) -> None:
        out = tmp_path_factory.mktemp("compiled")
        render = ["-m", "hms_dist", "render", "--data", recordings, "--out", out / "set", "--job", "0/2"]
        train = ["train.py", "--config", small_file, "--shards", shard_set, "--out", out / "run", "--epochs", 1]
        for words in (render, train):
            subprocess.run(
                [sys.executable, *map(str, words)], cwd=repository, check=True, capture_output=True, timeout=600,
                env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(folder)},
            )  # fmt: skip

    return shared("compiled", make)


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory, repository):
    """The two-node Slurm; tests skip where it is not installed, and fail where it does not come up."""
    slurm = Cluster(tmp_path_factory.mktemp("slurm") / "cluster", repository)
    try:
        started = slurm.start()
        if started.returncode == 2:
            pytest.skip(started.stderr.strip())
        assert started.returncode == 0, started.stdout + started.stderr + slurm.logs()
        slurm.give_compiled(request.getfixturevalue("compiled"))
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture
def up(cluster, tmp_path):
    """The Slurm with both nodes up and no jobs but the test's own."""
    started = cluster.start()
    assert started.returncode == 0, started.stderr + cluster.logs()
    yield cluster
    cluster.call("scancel", "--quiet", "--user", os.environ.get("USER", "root"))
    cluster.wait(lambda: not cluster.call("squeue", "--noheader").strip(), tmp_path)
