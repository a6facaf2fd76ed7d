"""SIGINT, SIGTERM and SIGHUP end a training after the step that is under way, on all ranks alike."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from fewlabels.runtime import parallel

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
            raise KeyboardInterrupt(signum)
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


class Between:
    """Before, between and after trainings, where nothing has to be saved: raises KeyboardInterrupt, with the signal.

    A training that ends with the step in which the signal came has nothing to stop; what would come next has.
    """

    def __init__(self) -> None:
        self.signum = 0
        """The first signal."""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        raise KeyboardInterrupt(signum)


def ask(signum: int) -> None:
    """From another thread: stop as after a signal. One that has come already, to this process too, meant the same."""
    handler = signal.getsignal(signum)
    if isinstance(handler, Stop):
        handler.ask(signum)
    elif isinstance(handler, Between) and not handler.signum:
        signal.pthread_kill(threading.main_thread().ident or 0, signum)


@contextlib.contextmanager
def between() -> Iterator[Between]:
    """The block holds several trainings; elsewhere than in the main thread nothing is caught."""
    around = Between()
    with _handled(around):
        yield around


@contextlib.contextmanager
def catch() -> Iterator[Stop]:
    """Within the block the signals are remembered; elsewhere than in the main thread nothing is caught.

    Raises KeyboardInterrupt at once for a signal that came in the last step of the training before.
    """
    stop, around = Stop(), signal.getsignal(signal.SIGTERM)
    if isinstance(around, Between) and around.signum:
        raise KeyboardInterrupt(around.signum)
    try:
        with _handled(stop):
            yield stop
    finally:
        if isinstance(around, Between):
            around.signum = around.signum or stop.signum


@contextlib.contextmanager
def _handled(handler: Stop | Between) -> Iterator[None]:
    """A SIGHUP that is ignored, as nohup wants it, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    old = {s: signal.signal(s, handler) for s in SIGNALS if s != signal.SIGHUP or not nohup}
    try:
        yield
    finally:
        for s, before in old.items():
            signal.signal(s, before)
