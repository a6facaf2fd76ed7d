"""The command line: finds the command, turns every foreseen error into one sentence. Imports no torch itself."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence

import fewlabels
from fewlabels.runtime import streams
from fewlabels.runtime.words import unknown

COMMANDS = {
    "train": ("train a classifier", "train [ALGORITHM] --data NAME|FOLDER [options]"),
    "evaluate": ("measure a run on its test images or on others", "evaluate RUN"),
    "predict": ("classify your own pictures", "predict RUN PATH... -o FILE"),
    "label": ("choose pictures to label next, and take the answers", "label RUN -o FOLDER"),
    "export": ("write the model as one file that runs without fewlabels", "export RUN --to onnx"),
    "report": ("put runs into one table, or on a page with pictures", "report RUN... [--html FILE]"),
    "doctor": ("say what may be wrong with a training", "doctor RUN"),
    "list": ("list algorithms, recipes, nets, views or data sets", "list [TOPIC]"),
    "split": ("show which images a data name labels", "split NAME"),
    "weights": ("list small learned nets, and fetch their weights", "weights list|fetch NAME"),
    "data": ("list, fetch, check, show and convert data sets", "data COMMAND"),
}
"""What each command does, and how it is called."""

ELSEWHERE = {"bench": "speed is measured in a checkout, with `python benchmarks/bench.py`"}
"""What is asked for here and found in another place."""
STOPPED = "stopped; nothing was saved since the last checkpoint"

HELP = """\
fewlabels {version}: train an accurate image classifier from a few labels and many
unlabeled pictures.

usage: fewlabels COMMAND [options]

{commands}

`fewlabels COMMAND --help` lists the options of a command. Without any,
`fewlabels train` trains FixMatch on 40 labels of the handwritten digits that
ship with scikit-learn.
"""


def main(argv: Sequence[str] | None = None, command: Callable[[list[str]], int] | None = None) -> None:
    """Run the command line and exit: 0, 1 (it went wrong), 2 (it was asked wrongly), 128 + signal."""
    os.environ["PYTHONSAFEPATH"] = "1"  # no file of the user's folder is a module to what torch or we start
    if "OMP_WAIT_POLICY" not in os.environ:  # beside other work, threads that spin at each other's end take its time
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    streams.occupy()
    code = run(list(sys.argv[1:] if argv is None else argv), command)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: a further Ctrl-C ends Python without more words
    sys.exit(code)


def child() -> None:
    """One of the runs of `fewlabels train --seeds` and `--folds`, in a process of its own."""
    from fewlabels.sweep.pool import child as train_one

    main([], train_one)


def shard() -> None:
    """One of the shards of `fewlabels predict --shards`, in a process of its own: its words come from standard input,
    and when that ends, so does it. Its parts are whole or not there."""
    import json

    def obey() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a cluster's word to the one that started this
    words = json.loads(sys.stdin.buffer.readline())["words"]
    threading.Thread(target=obey, daemon=True).start()
    main(words)


def run(args: list[str], command: Callable[[list[str]], int] | None = None) -> int:
    """Run the command line `args`; returns the exit status, which is not 0 if what was asked for could not be shown.

    command: what takes the arguments and returns the exit status; default: the command that the first of them names.
    """
    with streams.guarded() as out, warnings.catch_warnings():
        warnings.showwarning = _note
        try:
            code = _run(args) if command is None else _attempt(lambda: command, args, "bench")
        except SystemExit as stop:  # after --help
            code = int(stop.code or 0)
        out.flush()
        if out.lost and not out.aside and not code:
            if isinstance(out.lost, BrokenPipeError):  # `| head` has seen enough
                return 1
            return complain(f"standard output could not be written: {out.lost.strerror}", 1)
    return code


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(
            f"  {name:{width}}  {what}\n  {'':{width}}    fewlabels {usage}" for name, (what, usage) in COMMANDS.items()
        )
        print(HELP.format(version=fewlabels.__version__, commands=commands), end="")
        return 0
    if args[0] in ("-V", "--version"):
        print(f"fewlabels {fewlabels.__version__}")
        return 0
    if args[0] not in COMMANDS:
        return complain(f"there is no command {unknown(args[0], COMMANDS, ELSEWHERE.get(args[0]))}")
    return _attempt(lambda: importlib.import_module(f"fewlabels.commands.{args[0]}").main, args[1:], args[0])


def _attempt(load: Callable[[], Callable[[list[str]], int]], args: list[str], name: str) -> int:
    """The exit status of the command that `load` gives; a foreseen error becomes one sentence, others are raised."""
    try:
        with _nothing_to_lose():
            command = load()
        return command(args)
    except KeyboardInterrupt as stop:  # ours name their signal
        return complain(STOPPED, 128 + (*stop.args, signal.SIGINT)[0])
    except Exception as error:
        return _explain(error, name)


@contextlib.contextmanager
def _nothing_to_lose() -> Iterator[None]:
    """Ctrl-C ends the program at once: an exception in the middle of an import of torch would abort it in C++."""

    def leave(signum: int, frame: object) -> None:
        os._exit(complain(STOPPED, 130))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _note(message: Warning | str, *where: object, **more: object) -> None:
    """A warning of a library, without the place in its code."""
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


def _explain(error: Exception, command: str) -> int:
    """Say a foreseen error in one sentence; an unforeseen one keeps its traceback."""
    from fewlabels.commands.options import spelled
    from fewlabels.runs.run import NotWritten
    from fewlabels.runtime.interrupt import Interrupted
    from fewlabels.training.failures import Diverged, foreseen

    sentence = foreseen(error)
    if sentence is None:
        raise error
    if isinstance(error, ValueError):
        sentence = spelled(sentence, command)
    if isinstance(error, Interrupted | Diverged):
        code = 128 + error.signum if isinstance(error, Interrupted) else 1
        # every rank stops; one says so
        return complain(sentence, code) if os.environ.get("RANK", "0") == "0" else code
    return complain(sentence, 2 if isinstance(error, ValueError) and not isinstance(error, NotWritten) else 1)


def complain(sentence: str, code: int = 2) -> int:
    lines = (line.strip() for line in sentence.split("\n"))  # inner spaces stay: they may be those of a file's name
    print(f"fewlabels: {' '.join(filter(None, lines))}", file=sys.stderr)
    return code
