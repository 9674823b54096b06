"""The whole chain as jobs of a real Slurm, warned on its way: it ends in a report; submitted again, nothing is left."""

import json
import signal
import sys
from pathlib import Path

import pytest

from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.config.load import load
from hms_dist.results.predictions import read_predictions
from hms_dist.train.folder.record import read_metrics

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]
BIN = Path(sys.executable).parent


@pytest.fixture
def submit(up, tmp_path):
    """Run the script that submits the small chain; what it prints."""
    logs = tmp_path / "logs"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "hms-dist").write_text(f'#!/bin/sh\nexec {BIN}/python -m hms_dist "$@"\n')
    (tools / "hms-dist").chmod(0o755)
    setup = [*up.setup, f"export PATH={tools}:$PATH"]
    given = ["--config", str(up.repository / "configs/slurm/local.yaml"), "--job", "pipeline", f"--setup={setup}"]
    path = tmp_path / "pipeline.sh"
    path.write_text(script(load(Sbatch, [*given, f"--options=['--output={logs}/%x-%A_%a.log']"])))

    def call():
        logs.mkdir(exist_ok=True)
        chain = ["configs/pipeline/small.yaml", str(tmp_path / "data"), str(tmp_path / "out")]
        return up.call("bash", path, *chain)

    return call


def test_warned_on_its_way_it_goes_to_the_report_and_nothing_is_left_the_second_time(up, submit, tmp_path):
    """A task of an array is warned in the middle of its training: it alone goes round the queue."""
    jobs = dict(line.split(": job ") for line in submit().splitlines())
    assert (next(iter(jobs)), list(jobs)[-1]) == ("simulate", "report")
    warned, run = f"{jobs['stage_1']}_1", tmp_path / "out/stage_1/seed-1"
    task = {"SLURM_ARRAY_JOB_ID": jobs["stage_1"], "SLURM_ARRAY_TASK_ID": "1"}
    with up.asleep_when(lambda: len(read_metrics(run)) >= 2, tmp_path, **task) as training:
        up.call("scancel", "--signal=USR1", "--batch", warned)
        up.wait(lambda: up.awaits(training, signal.SIGTERM), tmp_path)
    up.wait(lambda: up.show(warned).get("Restarts") == "1", tmp_path)
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    up.end(jobs["report"], tmp_path)
    up.end(jobs["submission"], tmp_path)
    assert up.show(f"{jobs['stage_1']}_0")["Restarts"] == "0"
    log = tmp_path / f"logs/hms-stage_1-{warned}.log"
    assert f"{warned}: back into the queue after attempt 0" in log.read_text()
    page = tmp_path / "out/report.html"
    assert "Lowest KL" in page.read_text()
    assert len(read_predictions(tmp_path / "out/ensemble.parquet")) == 48
    before = page.stat().st_mtime_ns
    assert submit() == "every step is done\n"
    assert not up.call("squeue", "--noheader").strip()
    assert page.stat().st_mtime_ns == before
