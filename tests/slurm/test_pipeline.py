"""The whole chain as jobs of a real Slurm: submitted once it ends in a report, submitted again nothing is left."""

import sys
from pathlib import Path

import pytest

from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.config import load
from hms_dist.predictions import read_predictions

pytestmark = pytest.mark.slurm
BIN = Path(sys.executable).parent


@pytest.fixture
def submit(up, tmp_path):
    """Run the script that submits the small chain; what it prints."""
    logs = tmp_path / "logs"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "hms-dist").write_text(f'#!/bin/sh\nexec {BIN}/python -m hms_dist "$@"\n')
    (tools / "hms-dist").chmod(0o755)
    setup = [f"export PATH={tools}:{BIN}:$PATH PYTHONPATH={up.repository} TMPDIR={up.folder}"]
    given = ["--config", str(up.repository / "configs/slurm/local.yaml"), "--job", "pipeline", f"--setup={setup}"]
    path = tmp_path / "pipeline.sh"
    path.write_text(script(load(Sbatch, [*given, f"--options=['--output={logs}/%x-%A_%a.log']"])))

    def call():
        logs.mkdir(exist_ok=True)
        chain = ["configs/pipeline/small.yaml", str(tmp_path / "data"), str(tmp_path / "out")]
        return up.call("bash", path, *chain)

    return call


def test_from_submission_to_the_report_and_nothing_left_the_second_time(up, submit, tmp_path):
    lines = submit().splitlines()
    jobs = dict(line.split(": job ") for line in lines)
    assert next(iter(jobs)) == "simulate"
    assert list(jobs)[-1] == "report"
    up.end(jobs["report"], tmp_path, 240)
    page = tmp_path / "out/report.html"
    assert "Lowest KL" in page.read_text()
    assert len(read_predictions(tmp_path / "out/ensemble.parquet")) == 48
    before = page.stat().st_mtime_ns
    assert submit() == "every step is done\n"
    assert not up.call("squeue", "--noheader").strip()
    assert page.stat().st_mtime_ns == before
