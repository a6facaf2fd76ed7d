"""SIGINT, SIGTERM and SIGHUP end a training after the step that is under way, on all ranks alike."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import torch

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

    def agreed(self, step: int, device: torch.device) -> int:
        """The signal that ends the training after `step`, or 0. Several ranks compare every tenth step."""
        if not parallel.active():
            return self.signum
        return 0 if step % 10 else int(parallel.maximum(torch.tensor(self.signum, device=device)))


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_too_late = 0


def too_late() -> int:
    """The signal, once, that came in the last step of the training that ended last, and found nothing to stop; or 0.

    Who goes on with another training asks for it.
    """
    global _too_late
    signum, _too_late = _too_late, 0
    return signum


@contextlib.contextmanager
def catch() -> Iterator[Stop]:
    """Within the block the signals are remembered; elsewhere than in the main thread nothing is caught.

    A SIGHUP that is ignored, as nohup wants it, stays so.
    """
    global _too_late
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    old = {s: signal.signal(s, stop) for s in SIGNALS if s != signal.SIGHUP or not nohup}
    try:
        yield stop
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
    _too_late = stop.signum
