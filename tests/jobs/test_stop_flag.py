"""Flags that signals raise: real signals, also while another one is being handled."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from hms_dist.jobs.stop_flag import Flag, raised_by

IN_THE_MIDST = """
import signal, sys
from hms_dist.jobs.stop_flag import Flag, raised_by

asked, left = Flag(), 30

def ask_again(*_):
    global left
    if left:
        left -= 1
        signal.raise_signal(signal.SIGTERM)

with raised_by(asked, signal.SIGTERM):
    sys.setprofile(ask_again)  # called whenever a function begins or ends, within the handler too
    while left:
        signal.raise_signal(signal.SIGTERM)
    sys.setprofile(None)
print(asked.is_set())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_raises_it_as_often_as_it_comes_and_does_nothing_else(number):
    before, flag = signal.getsignal(number), Flag()
    with raised_by(flag, signal.SIGTERM, signal.SIGINT):
        assert not flag.is_set()
        for _ in range(3):
            os.kill(os.getpid(), number)
            assert flag.is_set()
    assert signal.getsignal(number) == before
    assert flag.is_set()


def test_signals_in_the_midst_of_others_do_not_wait_for_them():
    """With a threading.Event this waits forever for a lock that the interrupted handler holds."""
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_MIDST], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_outside_of_the_main_thread_nothing_changes():
    found, flag, before = [], Flag(), signal.getsignal(signal.SIGTERM)

    def look():
        with raised_by(flag, signal.SIGTERM):
            found.append(signal.getsignal(signal.SIGTERM))
        flag.set()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]
    assert flag.is_set()
