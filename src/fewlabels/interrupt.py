"""SIGINT and SIGTERM end a training after the step that is under way, on all ranks alike."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from fewlabels import parallel


class Interrupted(Exception):
    """The run was asked to stop, has saved its state, and can be resumed; the message says how."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


class Stop:
    """Remembers the signal; a second one ends the program at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._caught = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self._caught:
            raise KeyboardInterrupt
        self._caught = True
        self.ask(signum)

    def ask(self, signum: int) -> None:
        """Stop as after a signal. It is none: the first one after it is not the second, which would lose the state."""
        self.signum = self.signum or signum

    def agreed(self, step: int) -> int:
        """The signal that ends the training after `step`, or 0. Several ranks compare every tenth step."""
        if not parallel.active():
            return self.signum
        return 0 if step % 10 else parallel.agree(self.signum)


@contextlib.contextmanager
def catch() -> Iterator[Stop]:
    """Within the block the signals are remembered; elsewhere than in the main thread nothing is caught."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
