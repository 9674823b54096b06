"""A flag set by signals, polled by loops that can be stopped."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Flag:
    """A flag that is set once, by a signal or from any thread.

    A threading.Event would not do: setting it takes a lock, and a second signal, handled while the first one is being
    handled, would wait for it forever. Signals come in pairs: a scheduler and a launcher each send one, and Linux may
    repeat that of a dead parent (PR_SET_PDEATHSIG) as the parent's threads end one after another.
    """

    def __init__(self) -> None:
        self._is_up = False

    def set(self) -> None:
        """Set the flag."""
        self._is_up = True

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._is_up


@contextmanager
def raised_by(flag: Flag, *signals: signal.Signals) -> Iterator[None]:
    """Within the block, `signals` only set `flag`.

    No effect outside of the main thread, where Python cannot install handlers.
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
