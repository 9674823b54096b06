"""A flag that signals raise, for loops that look whether they were asked to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Flag:
    """Raised once and for good, by a signal or from any thread.

    A threading.Event would not do: setting it takes a lock, for which a second signal, handled while the first one is,
    waits forever. Signals come in twos: a scheduler and a launcher each send their own, and Linux may send that of a
    dead parent (PR_SET_PDEATHSIG) again as the parent's threads end one after another.
    """

    def __init__(self) -> None:
        self._is_up = False

    def set(self) -> None:
        """Raise the flag."""
        self._is_up = True

    def is_set(self) -> bool:
        """Whether the flag is up."""
        return self._is_up


@contextmanager
def raised_by(flag: Flag, *signals: signal.Signals) -> Iterator[None]:
    """While inside, `signals` raise `flag` and do nothing else, however often they come.

    Outside of the main thread, where Python sets no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.signal(number, lambda *_: flag.set())) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
