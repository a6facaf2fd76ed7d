"""Helper processes for work that threads cannot share: decoding a 32-pixel JPEG is mostly Python.

Not `multiprocessing`: forking a process with torch's threads in it is unsafe, its other ways import the
caller's script again, which a script without ``if __name__ == "__main__"`` does not survive, and its workers
can outlive a killed parent. These read jobs from a pipe and end with it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from fewlabels.runtime import children
from fewlabels.runtime.allocator import keep_freed_memory

T = TypeVar("T")
Map = Callable[[Callable[..., T], Iterable[tuple[Any, ...]]], Iterator[T]]

FROM = 2048
"""Jobs of fewer files are done by threads: a process needs some tenths of a second to start."""

AHEAD = 8
"""Jobs that wait for each thread."""


def count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(files: int) -> Iterator[Map[Any]]:
    """Give ``run(function, argument_tuples)``, which yields the results in order, worked out on all cores.

    `function` is a function of a module; it and its arguments travel as pickles. A process that dies is
    replaced by this one, which then shows the error.
    """
    keep_freed_memory()
    mine = threading.local()
    started: list[subprocess.Popen[bytes]] = []

    def ask(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if files < FROM or not sys.executable:
            return function(*args)
        try:
            if not hasattr(mine, "process"):
                mine.process = _start()
                started.append(mine.process)
            pickle.dump((function, args), mine.process.stdin, pickle.HIGHEST_PROTOCOL)
            mine.process.stdin.flush()
            return pickle.load(mine.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            return function(*args)

    def run(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        try:
            for args in jobs:  # some ahead, not all: of very many files the jobs are large
                waiting.append(pool.submit(ask, function, args))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    threads = min(32, count())
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            yield run
        finally:
            pool.shutdown(cancel_futures=True)
            for process in started:
                with suppress(OSError):
                    process.communicate()  # closes its input, and waits


def _start() -> subprocess.Popen[bytes]:
    command = children.command("fewlabels.data.workers", "serve")
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=children.environment())


def serve() -> None:
    """Work until the input ends, or a job fails: the parent does that one itself, and shows the error."""
    keep_freed_memory()
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land among the results
    while True:
        try:
            function, args = pickle.load(source)
            result = function(*args)
        except Exception:
            return
        pickle.dump(result, sink, pickle.HIGHEST_PROTOCOL)
        sink.flush()
