"""Indexes without shards, for what reads no bytes; and a web server of shards that misbehaves on demand."""

import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.datasets import HMS
from hms_dist.shards.index import Index, fold_column


def random_index(num_rows=503, *, seed, rows_per_shard=37):
    """EEGs of about four rows, patients of about three EEGs, in tars whose rows are mixed; up to 19 votes per row."""
    rng = np.random.default_rng(seed)  # or a generator
    frame = pd.DataFrame({"eeg_id": np.sort(rng.integers(0, num_rows // 4, num_rows))})
    frame["eeg_sub_id"] = frame.groupby("eeg_id").cumcount()
    frame["patient_id"] = frame["eeg_id"] // 3
    frame[list(HMS.vote_columns)] = rng.integers(0, 4, (num_rows, 6))
    frame["other_vote"] += 1
    frame[fold_column(5)] = frame["patient_id"] % 5
    frame = frame.sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)
    frame["shard"] = np.arange(num_rows) // rows_per_shard
    frame["key"] = frame["eeg_id"].astype(str) + "-" + frame["eeg_sub_id"].astype(str)
    return Index(frame)


@pytest.fixture
def index(rng):
    """503 rows, others in every test."""
    return random_index(seed=rng)


@pytest.fixture(scope="session")
def make_index():
    """A function that makes indexes."""
    return random_index


PAUSES_S = {"slow": 0.05, "hangs": 1.5}
"""How long these faults keep an answer back."""


class WebServer:
    """Serves `folder` at `.url`. `faults`: what befalls the next requests for tars, one each, in any order."""

    def __init__(self, folder: Path) -> None:
        self.faults: list[str] = []
        self.asked: list[tuple[str, int, int]] = []
        self.busiest = 0
        self._open, self._lock = 0, threading.Lock()
        handler: Callable[..., BaseHTTPRequestHandler] = partial(_Handler, self, folder)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/set"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def begin(self, name: str, start: int, end: int) -> str:
        """Note a request; the fault that befalls it."""
        with self._lock:
            self.asked.append((name, start, end))
            self._open += 1
            self.busiest = max(self.busiest, self._open)
            return self.faults.pop() if self.faults and name.endswith(".tar") else ""

    def end(self) -> None:
        with self._lock:
            self._open -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, server: WebServer, folder: Path, *args: object) -> None:
        self._owner, self._folder = server, folder
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self._folder / self.path.removeprefix("/set/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        given = self.headers.get("Range", f"bytes=0-{len(content) - 1}").removeprefix("bytes=").split("-")
        start, end = int(given[0]), min(int(given[1]) + 1, len(content))
        fault = self._owner.begin(path.name, start, end)
        time.sleep(PAUSES_S.get(fault, 0))
        self._owner.end()  # before the answer: the receiver may return before this thread continues
        self._answer(content, start, end, fault)

    def _answer(self, content: bytes, start: int, end: int, fault: str) -> None:
        part = content[start:end]
        if fault == "500":
            self.send_error(500)
            return
        if fault == "short":
            part = part[: len(part) // 2]
        elif fault == "flipped":
            part = bytes(byte ^ 1 for byte in part)
        elif fault == "ignores the range":
            part = content
        self.send_response(200 if fault == "ignores the range" else 206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve():
    """A function that serves a folder; the servers end with the test."""
    servers = []

    def start(folder: Path) -> WebServer:
        servers.append(WebServer(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
