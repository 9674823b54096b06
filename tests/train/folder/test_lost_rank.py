"""One of two gloo ranks fails alone: the job ends at once, with the reason."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

TWO = [f"{os.path.dirname(sys.executable)}/torchrun", "--standalone", "--nproc_per_node", "2"]
FAULTS = Path(__file__).with_name("rank_faults.py")


@pytest.mark.slow
def test_the_error_of_a_rank_is_the_one_recorded(repository, small_file, shard_set, tmp_path):
    out = tmp_path / "run"
    given = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(out)]
    command = [*TWO, str(FAULTS), "fails_at_the_third_step", "train.py", *given]
    ended = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert ended.returncode != 0
    status = json.loads((out / "status.json").read_text())
    assert time.time() - status["time"] < 60
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert status["message"] == "rank 1: torch.OutOfMemoryError: CUDA out of memory, as it were"
    assert (out / ".fault").exists(), "it would fail again: no requeue"
    assert "Traceback" in ended.stderr
    assert "rank_faults.py" in ended.stderr
    assert "rank 1 ERROR rank 1: torch.OutOfMemoryError" in ended.stderr
