"""Commands that end with the process that started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hms_dist.core.errors import Stopped
from hms_dist.jobs.processes import launched

WAITS = "import pathlib, time; pathlib.Path({path!r}).write_text(str(__import__('os').getpid())); time.sleep(600)"


def wait(condition):
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def number(path):
    wait(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_it_is_waited_for_and_its_code_is_known():
    with launched([sys.executable, "-c", "raise SystemExit(5)"]) as process:
        pass
    assert process.returncode == 5


def test_sigterm_goes_on_to_it(tmp_path, ended):
    path = tmp_path / "pid"
    command = [sys.executable, "-c", WAITS.format(path=str(path))]

    def asked_to_stop():
        with launched(command):
            number(path)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="stopped as asked"):
        asked_to_stop()
    assert ended(number(path))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_it_does_not_outlive_a_killed_parent(tmp_path, repository, ended):
    path = tmp_path / "pid"
    code = "import sys; from hms_dist.jobs.processes import launched\nwith launched(sys.argv[1:]): pass"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, sys.executable, "-c", WAITS.format(path=str(path))], cwd=repository
    )
    pid = number(path)
    parent.kill()
    parent.wait()
    wait(lambda: ended(pid))
