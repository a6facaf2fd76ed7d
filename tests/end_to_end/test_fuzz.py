"""Random commands on random files, each in a fork of one process that has everything imported, and what must hold.

    FEWLABELS_FUZZ=3000 FEWLABELS_FUZZ_SEED=7 pytest tests/end_to_end/test_fuzz.py
    python tests/end_to_end/test_fuzz.py --cases 3000 --seed 7           # groups of failures in fuzz.md; 1 if any
    python tests/end_to_end/test_fuzz.py --seed 7 --only 123 --keep DIR  # one case again, its files left in DIR

A case is a command that works on files that are good, and one to three changes to the words, the files, the places, the
streams or the environment. Case and change have random numbers of their own, from (seed, number): a case does not
depend on those before it, and stays what it is without one of its changes (``--without 0,2``).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import gc
import hashlib
import importlib
import io
import json
import os
import pkgutil
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest
from fuzz_cases import CHANGES, TEMPLATES, TINY, Case, finished
from PIL import Image

LIMIT, MEMORY = 60.0, 6 << 30
"""Seconds and bytes of address space of one case."""

SEVERITY = (
    "other numbers",
    "lost or changed",
    "strayed",
    "hang",
    "killed",
    "traceback",
    "status",
    "not a number",
    "nothing done",
    "litter",
    "left running",
    "escape sequence",
    "no sentence",
    "long answer",
    "warning of a library",
)
"""Kinds of failures, the worst first."""


class Outcome(NamedTuple):
    """How a case ended."""

    status: int | None
    """Exit status, -N after signal N, None: out of time."""
    out: bytes
    err: bytes
    before: dict[str, tuple[object, ...]]
    after: dict[str, tuple[object, ...]]
    """Every file below the case's folder."""
    left: bool
    """A process outlived the command."""


class Failure(NamedTuple):
    kind: str
    """One of SEVERITY."""
    what: str
    """What cases with the same cause share."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


# --- the process that forks ---------------------------------------------------------------------------------------


def warm_up() -> None:
    """Import all of fewlabels, and what it imports later on; no thread is started."""
    import fewlabels

    for module in pkgutil.walk_packages(fewlabels.__path__, "fewlabels."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # what an extra would install
                importlib.import_module(module.name)
    importlib.import_module("torch.utils.tensorboard")
    importlib.import_module("sklearn.datasets")
    importlib.import_module("forked")
    gc.collect()
    gc.freeze()  # a child that collects garbage does not copy what it shares
    assert threading.active_count() == 1, "a fork would lose the other threads"


def execute(case: Case, limit: float = LIMIT) -> Outcome:
    """Run the command in a fork, with the streams and the environment of the case."""
    before = tree(case.root)
    pipes = {1: os.pipe(), 2: os.pipe()}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(case, pipes)
    for _, write in pipes.values():
        os.close(write)
    said = {1: b"", 2: b""}
    status = _wait(pid, {pipes[fd][0]: fd for fd in pipes}, said, limit)
    left = _group_lives(pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for read, _ in pipes.values():
        os.close(read)
    return Outcome(status, said[1], said[2], before, tree(case.root), left)


def _wait(pid: int, names: dict[int, int], said: dict[int, bytes], limit: float) -> int | None:
    """Collect what the child says until it ends; its status, or None if it took too long and was killed."""
    start, ended = time.monotonic(), os.pidfd_open(pid)
    watched = [*names, ended]
    try:
        while True:
            passed = time.monotonic() - start
            if passed > limit:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None
            ready = select.select(watched, [], [], limit - passed)[0]
            for fd in ready:
                if fd != ended:
                    block = os.read(fd, 1 << 16)
                    said[names[fd]] += block
                    if not block:
                        watched.remove(fd)
            if ready == [ended]:  # and nothing more to read
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(ended)


def _group_lives(group: int) -> bool:
    """Whether a process of the group is still there after a moment."""
    for _ in range(20):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def _child(case: Case, pipes: dict[int, tuple[int, int]]) -> NoReturn:
    from fewlabels.sweep import pool
    from forked import Forked

    code = 99
    try:
        os.setpgid(0, 0)
        os.environ.clear()
        os.environ.update(case.env)
        tempfile.tempdir = None
        if case.folder_gone:
            os.chdir(case.root)
            os.mkdir("gone")
            os.chdir("gone")
            os.rmdir("../gone")
        else:
            os.chdir(case.work)
        os.umask(0o022)
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_AS: MEMORY, **case.limits}
        for which, value in limits.items():
            resource.setrlimit(which, (value, value))
        _no_network()
        _streams(case, pipes)
        _without_privileges()
        pool.start = Forked
        if case.signal:
            _signal_at(*case.signal, str(case.root))
        code = _as_interpreter(case.argv)
    finally:
        os._exit(code)


def _as_interpreter(argv: Sequence[str]) -> int:
    """What Python does with a program and at its end; only the modules are not taken down."""
    from fewlabels import cli

    sys.argv = ["fewlabels", *argv]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what comes now is Python's own
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(2, f"Exception ignored in: {stream.name}\n{error}\n".encode())
            code = 120
    return code & 0xFF


def _streams(case: Case, pipes: dict[int, tuple[int, int]]) -> None:
    """Standard input, output and error of the case, as Python opens them."""
    ways = {0: case.streams[0], 1: case.streams[1], 2: case.streams[2]}
    for fd, way in ways.items():
        if way == "pipe":
            os.dup2(pipes[fd][1], fd)
        elif way == "broken":
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, fd)
        elif way == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), fd)
        elif way == "null":
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    for fd in range(3, 1024):  # whatever the parent has open
        with contextlib.suppress(OSError):
            os.close(fd)
    for fd, way in ways.items():
        if way == "closed":
            os.close(fd)
    encoding = case.env.get("PYTHONIOENCODING", "utf-8")
    errors = "surrogateescape" if case.env.get("LC_ALL", case.env.get("LANG")) in ("C", "POSIX") else "strict"
    at_once = bool(case.env.get("PYTHONUNBUFFERED"))

    def stream(fd: int, mode: str, errors: str, **kwargs: Any) -> Any:
        if ways[fd] == "closed":
            return None
        raw = io.FileIO(fd, mode, closefd=False)
        buffered = raw if at_once and "w" in mode else (io.BufferedReader if "r" in mode else io.BufferedWriter)(raw)
        return io.TextIOWrapper(buffered, encoding, errors, write_through=at_once and "w" in mode, **kwargs)

    sys.stdin = sys.__stdin__ = stream(0, "r", errors)
    sys.stdout = sys.__stdout__ = stream(1, "w", errors)
    sys.stderr = sys.__stderr__ = stream(2, "w", "backslashreplace", line_buffering=True)


def _signal_at(signum: int, count: int, root: str) -> None:
    """Send the process a signal right before it opens, makes, renames, ... its file number `count`."""
    left = count

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        if event == "open" or event.startswith("os."):
            path = os.fsdecode(args[0]) if args and isinstance(args[0], str | bytes) else ""
            left -= path.startswith(root) or (path != "" and not path.startswith("/"))
            if left == 0:
                left = -1
                os.kill(os.getpid(), signum)

    sys.addaudithook(hook)


def _no_network() -> None:
    """As on a machine without one: nothing is ever fetched."""

    def unreachable(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(101, "Network is unreachable")

    def unknown(*args: object, **kwargs: object) -> NoReturn:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    socket.socket.connect = unreachable
    socket.getaddrinfo = unknown


def _without_privileges() -> None:
    """Root too must heed the permissions of files: drop all capabilities (Linux)."""
    if os.geteuid() == 0:
        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, data) == 0


# --- what must hold -----------------------------------------------------------------------------------------------


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Kind, permissions and content of everything below `root`, links not followed, but for caches."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [str(root)]
    while pending:
        top = pending.pop()
        if not os.access(top, os.R_OK | os.X_OK):
            continue
        with os.scandir(top) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                name = os.path.relpath(entry.path, root)
                if name == "cache":
                    continue
                kind, content = stat.S_IFMT(info.st_mode), ""
                if entry.is_symlink():
                    content = os.readlink(entry.path)
                elif stat.S_ISDIR(kind):
                    pending.append(entry.path)
                elif stat.S_ISREG(kind) and os.access(entry.path, os.R_OK):
                    content = hashlib.sha256(Path(entry.path).read_bytes()).hexdigest()
                found[name] = (kind, stat.S_IMODE(info.st_mode), content)
    return found


def judge(case: Case, outcome: Outcome) -> list[Failure]:
    """What does not hold, the worst first."""
    found = [*_end(case, outcome), *_files(case, outcome), *_words(case, outcome)]
    if outcome.status == 0 and not found and not case.asks_help:
        found += [Failure("nothing done", f"{case.name} wrote no {name}") for name in case.missing_results()]
        for reason in case.other_numbers(outcome.out) if case.expect else ():
            found.append(Failure("other numbers", reason))
    return sorted(set(found), key=lambda f: SEVERITY.index(f.kind))


def _end(case: Case, outcome: Outcome) -> Iterator[Failure]:
    text = (outcome.out + b"\n" + outcome.err).decode("utf-8", "replace")
    if outcome.status is None:
        yield Failure("hang", case.name)
    elif "Traceback (most recent call last)" in text or "Exception ignored" in text:
        yield Failure("traceback", _last_frame(text))
    elif outcome.status < 0 and not (case.signal and outcome.status == -case.signal[0]):
        yield Failure("killed", f"{case.name} by {signal.Signals(-outcome.status).name}")
    elif outcome.status not in (0, 1, 2, 129, 130, 143) and outcome.status >= 0:
        yield Failure("status", f"{outcome.status}, stdout {case.streams[1]}, stderr {case.streams[2]}")
    if outcome.left:
        yield Failure("left running", case.name)


def _last_frame(text: str) -> str:
    """Where in fewlabels, and which exception: ``KeyError in log.py, read``."""
    text = text[max(text.find("Traceback (most"), 0) :] if "Traceback (most" in text else text
    ours = re.findall(r'fewlabels/([\w/]+\.py)", line \d+, in (\w+)', text)
    errors = re.findall(r"^([\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Stop)\w*)\b", text, re.M)
    ignored = "ignored, " if "Exception ignored" in text else ""
    where = ", ".join(ours[-1]) if ours else next(iter(re.findall(r"ignored in:? (.{0,60})", text)), "?")
    return f"{ignored}{errors[-1] if errors else '?'} in {where}"


def _files(case: Case, outcome: Outcome) -> Iterator[Failure]:
    before, after = outcome.before, outcome.after
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        kind = "lost" if name not in after else "new" if name not in before else "changed"
        pattern = re.sub(r"\d+", "N", name)
        if kind == "new" and "torchinductor_" in name:
            continue  # torch makes it when parts of it are imported
        if kind == "new" and re.search(r"\.tmp\b|~$", name):
            if outcome.status is None or outcome.status >= 0:  # who is killed cannot clean up
                yield Failure("litter", f"{os.path.basename(pattern)} of {case.command}")
        elif kind == "new" and outcome.status == 2 and case.owns(name):
            yield Failure("litter", f"{case.command} ends with 2 and leaves something")
        elif kind == "new" and not case.owns(name):
            yield Failure("strayed", f"{pattern} of {case.name}")
        elif kind != "new" and not case.may_change(name):
            yield Failure("lost or changed", f"{pattern} {kind} by {case.name}")


NOT_A_NUMBER = re.compile(rb"(?<![\w.\"'/-])(nan|NaN|-?inf|-?Infinity)(?![\w.\"'/])")


BESIDE = re.compile(rb"note: |warning: |step \d|seed |fold |\[|could not read |wrote |class folders |supervised|  ")
"""Lines of standard error that are no complaint: notes, progress, lists of files."""


def _words(case: Case, outcome: Outcome) -> Iterator[Failure]:
    status, out, err = outcome.status, outcome.out, outcome.err
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", err + (b"" if case.copies_names else out)):
        where = "stderr" if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", err) else "stdout"
        yield Failure("escape sequence", f"{where} of {case.name}")
    if match := re.search(rb"site-packages\S*?/([\w/]+\.py):\d+: (\w*Warning)", err):
        yield Failure("warning of a library", b" ".join(match.groups()[::-1]).decode())
    if status == 0 and not case.has_nan:
        results = {"stdout": out}
        for name, (kind, *_) in outcome.after.items():
            if name not in outcome.before and stat.S_ISREG(int(kind)) and name.endswith((".json", ".jsonl", ".csv")):
                results[re.sub(r"\d+", "N", name)] = (case.root / name).read_bytes()
        for name, text in results.items():
            if match := NOT_A_NUMBER.search(text):
                yield Failure("not a number", f"{match[0].decode()} in {name} of {case.name}")
    if status in (1, 2) and case.streams[2] == "pipe" and b"Traceback" not in err:
        lines = [line for line in err.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith(b"fewlabels: ")]
        rest = [x for x in lines if x not in said and not BESIDE.match(x)]
        if not said and case.streams[1] == "pipe" and not (case.command == "data check" or b" failed: " in err):
            yield Failure("no sentence", f"status {status} of {case.name}")
        elif len(said) > 1 or len(rest) > 3 - len(said):
            yield Failure("long answer", f"{len(said)} sentences and {len(rest)} lines from {case.name}")
        elif max(map(len, said), default=0) > 800 + 2 * max(map(len, case.argv), default=0):
            yield Failure(
                "long answer", f"a sentence of more than 800 characters: {said[0][:60].decode('utf-8', 'replace')}"
            )


# --- the files that the cases start from --------------------------------------------------------------------------

SETTINGS = " ".join(TINY)


class _StopsAt(io.StringIO):
    """Output that sends SIGTERM to its own process when the text comes."""

    def write(self, text: str) -> int:
        if "step 3/" in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


def prepare(store: Path) -> dict[str, Any]:
    """Make the good files in `store`, by the commands themselves; returns what the good runs say."""
    work = store / "work"
    work.mkdir(parents=True)
    pictures(work / "photos")
    rows = [f"labeled/{c}/{i}.png,{c},train" for c in ("blue", "red") for i in range(4)]
    rows += [f"unlabeled/{c}{i}.png,,unlabeled" for c in ("blue", "red") for i in range(4)]
    rows += [f"test/{c}/{i}.png,{c},test" for c in ("blue", "red") for i in range(4)]
    (work / "photos" / "table.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    (work / "names.json").write_text('{"blue": "sky", "red": "rose"}')
    (store / "outside.txt").write_text("nobody's\n")
    commands = [
        f"train --data digits@40 {SETTINGS} --out run",
        f"train --data digits.2@40 --seed 2 {SETTINGS} --out sister",
        f"train --data digits@40 {SETTINGS} --out stopped",
        f"train --data photos/ {SETTINGS} --out photorun",
        "split photos/ --labels 4 --out split.json",
        "split digits@40 --out digits.json",
        "data convert photos photos.npz",
        "data convert photos photos.tfrecord",
        "data rename renamed --in-place",
    ]
    shutil.copytree(work / "photos", work / "renamed")
    case = Case(0, -1, store, work)
    (store / "home").mkdir()
    for words in commands:
        case.argv = words.split()
        _must(case, stops="stopped" in words)
    truth: dict[str, Any] = {}
    for words in ("evaluate run --json", "evaluate photorun --json", "report run --json", "report photorun --json"):
        case.argv = words.split()
        truth[words] = json.loads(_must(case))
    case.argv = ["predict", "photorun", "photos/test", "--no-progress"]
    truth["predict photorun"] = _must(case).decode()
    shutil.copytree(work / "stopped", work / "resumed")
    case.argv = ["train", "--resume", "resumed", "--no-progress"]
    _must(case)
    truth["resumed"] = finished(work / "resumed")
    shutil.rmtree(work / "resumed")
    return truth


def _must(case: Case, stops: bool = False) -> bytes:
    """The output of a command that works."""
    read, write = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.environ.clear()
            os.environ.update(case.env)
            os.chdir(case.work)
            from fewlabels import cli

            err = _StopsAt() if stops else io.StringIO()
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(err):
                code = cli.run(list(case.argv))
            with open(write, "w") as file:
                file.write(out.getvalue())
        finally:
            os._exit(code)
    os.close(write)
    with open(read, "rb") as file:
        out = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == (143 if stops else 0), f"{shlex.join(case.argv)} ended with {status}: {out.decode()}"
    return out


def pictures(root: Path) -> None:
    """Two classes of clearly different colour, in labeled/, unlabeled/ and test/."""
    random = np.random.default_rng(0)
    for part in ("labeled", "unlabeled", "test"):
        for name, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
            for i in range(4):
                path = root / (f"{part}/{name}{i}.png" if part == "unlabeled" else f"{part}/{name}/{i}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = random.integers(-30, 31, (8, 8, 3))
                Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def options_of(words: str) -> dict[str, str]:
    """The options that ``WORDS --help`` shows, each with its metavar (a flag has none)."""
    from fewlabels import cli

    os.environ["COLUMNS"] = "500"
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")  # frames are drawn in ASCII where there is no encoding
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.run([*words.split(), "--help"])
    out.seek(0)
    found = {}
    for line in out.read().splitlines():
        match = re.match(r"[│|] (?:-\w \S+, )?(--[\w.-]+)(?:, --[\w.-]+)*(?: (\S+))? {2,}", line)
        if match:
            found[match[1]] = match[2] or ""
    assert found, f"{words} --help shows no options"
    return found


# --- cases --------------------------------------------------------------------------------------------------------


class Fuzz:
    """Makes, runs and judges cases, below one folder."""

    def __init__(self, root: Path, seed: int, limit: float = LIMIT) -> None:
        self.root, self.seed, self.limit = root, seed, limit
        self.store = root / "store"
        self.truth = prepare(self.store)
        self._options: dict[str, dict[str, str]] = {}

    def options(self, words: str) -> dict[str, str]:
        if words not in self._options:
            self._options[words] = options_of(words)
        return self._options[words]

    def blank(self, number: int, folder: Path) -> Case:
        """A case without command and files, in a new folder."""
        case = Case(self.seed, number, folder, folder / "work")
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        shutil.copy(self.store / "outside.txt", folder)
        case.truth, case.store, case.options = self.truth, self.store / "work", self.options
        return case

    def make(self, number: int, folder: Path, without: frozenset[int] = frozenset()) -> Case:
        """Case `number` with its files in `folder`, but for some of its changes."""
        case = self.blank(number, folder)
        rng = Random(f"{self.seed} {number}")
        template = rng.choices(TEMPLATES, [t.weight for t in TEMPLATES])[0]
        case.name = template.name
        template.make(case, rng)
        count = rng.choices((1, 2, 3), (6, 3, 1))[0]
        chosen = rng.choices(CHANGES, [c.weight for c in CHANGES], k=count)
        for i, change in enumerate(sorted(chosen, key=CHANGES.index)):
            if i not in without:
                case.changes.append(i)
                change.apply(case, Random(f"{self.seed} {number} {i} {change.name}"))
        return case

    def run(self, number: int, without: frozenset[int] = frozenset(), keep: Path | None = None) -> Found:
        """Make, run and judge one case."""
        folder = keep or self.root / f"case-{number}"
        case = self.make(number, folder, without)
        try:
            outcome = execute(case, self.limit)
            return Found(case, outcome, judge(case, outcome))
        finally:
            if keep is None:
                wipe(folder)

    def smallest(self, found: Found) -> Found:
        """The same failure with as few changes as it needs."""
        worst = found.failures[0]
        without: frozenset[int] = frozenset()
        for change in found.case.changes:
            fewer = without | {change}
            again = self.run(found.case.number, fewer)
            if worst in again.failures:
                found, without = again._replace(without=fewer), fewer
        return found


class Found(NamedTuple):
    """A case that ran."""

    case: Case
    outcome: Outcome
    failures: list[Failure]
    without: frozenset[int] = frozenset()

    def describe(self) -> str:
        """How to run the case again, what it is, and what came."""
        case, out = self.case, self.outcome
        again = f"--seed {case.seed} --only {case.number}"
        if self.without:
            again += " --without " + ",".join(map(str, sorted(self.without)))
        env = [f"{k}={shlex.quote(v)}" for k, v in case.env.items() if case.plain_env().get(k) != v]
        env += [f"-u {k}" for k in case.plain_env() if k not in case.env]
        command = " ".join([*(["env", *env] if env else []), "fewlabels", *map(shlex.quote, case.argv)])
        redirects = {"closed": "&-", "full": "/dev/full", "broken": "(a broken pipe)"}
        for fd, way in enumerate(case.streams):
            command += f" {fd or ''}{'>' if fd else '<'}{redirects[way]}" if way in redirects else ""
        if case.signal:
            command += (
                f"  # and {signal.Signals(case.signal[0]).name} before it touches its file number {case.signal[1]}"
            )
        lines = [
            f"python tests/end_to_end/test_fuzz.py {again} --keep DIR",
            *(f"  {line}" for line in case.how),
            f"  {command}",
        ]
        for name, text in (("out", out.out), ("err", out.err)):
            shown = text.decode("utf-8", "backslashreplace").splitlines()[-4:]
            lines += [f"  {name}| {line[:300]!r}" for line in shown]
        return "\n".join([*lines, f"  status {out.status}", *(f"  {f}" for f in self.failures)])


def wipe(folder: Path) -> None:
    """Remove a folder, whatever its permissions are."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
    shutil.rmtree(folder)


def report(fuzz: Fuzz, numbers: Sequence[int], quick: bool) -> tuple[str, int]:
    """Run cases; the groups of failures in words, the worst first, and how many cases failed."""
    groups: dict[Failure, list[Found]] = {}
    kinds: dict[int, int] = {}
    start = time.monotonic()
    for number in numbers:
        found = fuzz.run(number)
        kinds[found.outcome.status or 0] = kinds.get(found.outcome.status or 0, 0) + 1
        for failure in found.failures[:1]:
            groups.setdefault(failure, []).append(found)
    failed = sum(map(len, groups.values()))
    statuses = ", ".join(f"{n} with {status}" for status, n in sorted(kinds.items()))
    lines = [
        f"# {len(numbers)} cases, seed {fuzz.seed}: {failed} failed, in {len(groups)} groups",
        f"{time.monotonic() - start:.0f} s; ended: {statuses}",
    ]
    for failure, cases in sorted(groups.items(), key=lambda g: (SEVERITY.index(g[0].kind), -len(g[1]))):
        first = min(cases, key=lambda f: (len(f.case.changes), sum(map(len, f.case.argv))))
        if not quick and failure.kind != "hang":
            first = fuzz.smallest(first)
        others = " ".join(str(f.case.number) for f in cases[:12])
        lines += [f"\n## {failure} ({len(cases)})", "cases " + others, "```", first.describe(), "```"]
    return "\n".join(lines) + "\n", failed


# --- whether all this can fail ------------------------------------------------------------------------------------


def _leave_a_process() -> None:
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "30"])


PLANTED: dict[str, Callable[[], object]] = {
    "": lambda: Path("new").write_text("1 %"),
    "other numbers": lambda: print('{"accuracy": 1.0, "step": 6}'),
    "lost or changed": lambda: os.truncate("run/config.json", 10),
    "strayed": lambda: Path("../tmp/x").write_text("x"),
    "hang": lambda: time.sleep(60),
    "killed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "traceback": lambda: {}["x"],
    "status": lambda: sys.exit(120),
    "not a number": lambda: print("accuracy nan %"),
    "nothing done": lambda: os.remove("new"),
    "litter": lambda: Path("new.123.tmp").write_text("x"),
    "left running": _leave_a_process,
    "escape sequence": lambda: print("\x1b[31m"),
    "no sentence": lambda: sys.exit(1),
    "long answer": lambda: sys.exit("fewlabels: one\nfewlabels: two"),
    "warning of a library": lambda: print("/x/site-packages/PIL/Image.py:1: BombWarning: big", file=sys.stderr),
}
"""A fault of each kind, after a file "new" was written; without a name, none."""


def plant(fuzz: Fuzz) -> dict[str, list[str]]:
    """The kinds of failures that are found in commands with one fault each."""
    from fewlabels import cli

    def faulty(args: list[str], command: object = None) -> int:
        Path("new").write_text("100 %")
        PLANTED[args[0]]()
        return 0

    whole, cli.run = cli.run, faulty
    found = {}
    try:
        for name in PLANTED:
            case = fuzz.blank(0, fuzz.root / "planted")
            case.take("run")
            case.name = case.command = "planted"
            case.argv, case.writes, case.results = [name], {"new"}, ["new"]
            case.expect = "evaluate run --json" if name == "other numbers" else ""
            found[name] = [f.kind for f in judge(case, execute(case, 3))]
            wipe(case.root)
    finally:
        cli.run = whole
    return found


def same_twice(fuzz: Fuzz, number: int) -> bool:
    """Whether a case is the same wherever and whenever it is made."""
    seen = []
    for i in range(2):
        case = fuzz.make(number, fuzz.root / f"made-{i}")
        names = sorted(tree(case.root))
        seen.append(repr((case.argv, case.how, case.env, case.streams, names)).replace(f"made-{i}", "made"))
        wipe(case.root)
    return seen[0] == seen[1]


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and show it")
    parser.add_argument("--without", default="", help="changes of it to leave out")
    parser.add_argument("--keep", type=Path, help="new folder for its files")
    parser.add_argument("--report", type=Path, default=Path("fuzz.md"))
    parser.add_argument("--planted", type=Path, help="first try faults that were planted; what was found, as JSON")
    parser.add_argument("--quick", action="store_true", help="do not look for smaller cases")
    given = parser.parse_args(args)
    if os.environ.get("OMP_NUM_THREADS") != "1":  # before numpy and torch start their threads
        return subprocess.run(
            [sys.executable, __file__, *(args or sys.argv[1:])], env={**os.environ, "OMP_NUM_THREADS": "1"}
        ).returncode
    sys.path.append(str(Path(__file__).parents[1]))
    warm_up()
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        fuzz = Fuzz(root, given.seed)
        if given.only is not None:
            without = frozenset(int(x) for x in given.without.split(",") if x)
            found = fuzz.run(given.only, without, given.keep)
            print(found._replace(without=without).describe())
            return int(bool(found.failures))
        if given.planted:
            planted = {"found": plant(fuzz), "same": [same_twice(fuzz, number) for number in range(8)]}
            given.planted.write_text(json.dumps(planted))
        text, failed = report(fuzz, range(given.first, given.first + given.cases), given.quick)
        given.report.write_text(text, errors="backslashreplace")
        print(text.split("\n\n")[0])
        return int(failed > 0)
    finally:
        wipe(root)


# --- the tests ----------------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    status: int
    report: str
    planted: dict[str, Any]


@pytest.fixture(scope="module")
def ran(once: Callable[[str, Callable[[Path], None]], Path]) -> Ran:
    """The cases of this session, in a process of their own."""

    def run(folder: Path) -> None:
        cases, seed = os.environ.get("FEWLABELS_FUZZ", "5"), os.environ.get("FEWLABELS_FUZZ_SEED", "0")
        words = ["--cases", cases, "--seed", seed, "--report", folder / "fuzz.md", "--planted", folder / "planted.json"]
        done = subprocess.run(
            [sys.executable, __file__, *map(str, words)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert (folder / "fuzz.md").is_file(), done.stderr
        (folder / "status").write_text(str(done.returncode))

    folder = once("fuzz", run)
    status, planted = int((folder / "status").read_text()), json.loads((folder / "planted.json").read_text())
    return Ran(status, (folder / "fuzz.md").read_text(), planted)


@pytest.mark.slow
def test_a_planted_fault_of_each_kind_is_found(ran: Ran) -> None:
    assert set(PLANTED) == {"", *SEVERITY}
    assert ran.planted["found"] == {kind: [kind] if kind else [] for kind in PLANTED}


@pytest.mark.slow
def test_a_case_is_the_same_whenever_it_is_made(ran: Ran) -> None:
    assert ran.planted["same"] == [True] * 8


@pytest.mark.slow
def test_random_commands_end_with_a_result_or_a_sentence(ran: Ran) -> None:
    assert ran.status == 0, ran.report


if __name__ == "__main__":
    sys.exit(main())
