"""The JSON files of a run folder: read, checked, tied to each other. No torch here, so that a report starts at once.

What ties them: meta.json of a checkpoint and result.json carry a digest of each file that says what is trained
(`identity`), how much of metrics.jsonl was written by then, and a digest of all that, the seal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewlabels.runtime import regular

FREE_TO_CHANGE = ("device", "keep", "log")
"""Settings that a resumed run may have otherwise than it began: they do not touch the result."""

FORMAT = 2
"""Of checkpoints: weights.safetensors holds the whole model, net and heads. In 1, which was not written: the net."""

PLACES = ("name", "root", "classes", "shard_cache")
"""Settings of `Data` by which a resumed run may find its own pictures elsewhere: the split knows their names in the
folder, and their contents."""

FORMAT_1 = {"step", "world", "split", "sha256"}
"""Keys of a meta.json from before there were seals."""


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message is one sentence for the user."""


class NotWritten(RunError):
    """The disk did not take it; what was saved before is as it was."""


def digest(value: Any) -> str:
    """sha256 (hex) of what `value` is in JSON, whatever the order of its keys."""
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextlib.contextmanager
def reading(path: Path, of: str = "") -> Iterator[None]:
    """Raises RunError for a file of a run folder that cannot be read within the block.

    of: what the file is a part of, in words ("checkpoint PATH"); default: its folder.
    """
    where = _named(path, of)
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{of or path.parent} is incomplete: {path.name} is missing") from None
    except UnicodeDecodeError:
        raise RunError(f"{where} cannot be read: it is not UTF-8") from None
    except OSError as error:
        raise RunError(f"{where} cannot be read: {error.strerror}") from None


def parsed(path: Path, of: str = "") -> dict[str, Any]:
    """The JSON object in a file of a run folder; `of` as for `reading`. Raises RunError."""
    with reading(path, of):
        text = regular.read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise RunError(f"{_named(path, of)} is not JSON") from None
    if not isinstance(content, dict):
        raise RunError(f"{_named(path, of)} holds no JSON object")
    return content


def _named(path: Path, of: str) -> str:
    return f"{of} is damaged: {path.name}" if of else str(path)


def settings(folder: Path) -> dict[str, Any]:
    """The configuration in config.json, as plain values. Raises RunError."""
    train = parsed(folder / "config.json").get("train")
    if not isinstance(train, dict):
        raise RunError(f"{folder / 'config.json'} holds no training configuration")
    return train


def identity(folder: Path) -> dict[str, str]:
    """A digest of each file that says what is trained: of the settings those that touch the result. Raises RunError."""
    train = settings(folder)
    return {
        "config.json": digest({k: v for k, v in train.items() if k not in FREE_TO_CHANGE}),
        "data.json": digest(parsed(folder / "data.json")),
        "split.json": digest(parsed(folder / "split.json")),
    }


def sealed(content: Mapping[str, Any], run: Mapping[str, str]) -> dict[str, Any]:
    """`content` with the identity of its run and a digest of both."""
    whole = {**content, "run": dict(run)}
    return {**whole, "seal": digest(whole)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether nothing has changed since `sealed` made it."""
    return content.get("seal") == digest({k: content[k] for k in content if k != "seal"})


def check_own(content: Mapping[str, Any], folder: Path, what: str) -> None:
    """Raises RunError where sealed `content`, which the sentence calls `what`, is not of the run in `folder`."""
    now, then = identity(folder), content["run"]
    if other := [name for name in now if now[name] != then.get(name)]:
        raise RunError(
            f"{what} does not belong to {folder}: {' and '.join(other)} {'are' if other[1:] else 'is'} not what it was "
            "when that was written; put back what was changed or copied there, or train a new run"
        )


def finished(folder: Path) -> bool:
    return os.path.lexists(folder / "result.json")


def result(folder: Path) -> dict[str, Any]:
    """result.json, its seal checked. Raises RunError.

    That of a run from before there were seals is taken as it is; it is not taken beside a checkpoint that has one.
    """
    path = folder / "result.json"
    content = parsed(path)
    if "seal" not in content and _newest_meta(folder) is None:
        return content
    if not is_sealed(content):
        raise RunError(f"{path} has changed since it was written: put it back, or train the run again")
    check_own(content, folder, str(path))
    return content


def _newest_meta(folder: Path) -> dict[str, Any] | None:
    """meta.json of the newest state whose seal holds and is this run's.

    Raises RunError where there are sealed ones and none is this run's: its settings have changed, or they are foreign.
    """
    try:
        names = os.listdir(folder / "checkpoints")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{folder / 'checkpoints'} cannot be read: {error.strerror}") from None
    foreign: RunError | None = None
    for name in sorted((n for n in names if re.fullmatch(r"step-[0-9]+", n)), key=lambda n: -int(n[5:])):
        try:
            content = parsed(folder / "checkpoints" / name / "meta.json")
        except RunError:
            continue  # who needs the checkpoint is told; here an older one says less, and nothing wrong
        if is_sealed(content):
            try:
                check_own(content, folder, f"checkpoint {folder / 'checkpoints' / name}")
                return content
            except RunError as error:
                foreign = foreign or error
    if foreign:
        raise foreign
    return None


def written(folder: Path, mark: Mapping[str, Any], by: str) -> bytes:
    """The lines of metrics.jsonl that were there when `by` was written, which had the `mark` ``{"bytes", "sha256"}``.

    Raises RunError where they are not what they were.
    """
    data = _metrics(folder)[: mark["bytes"]]
    if hashlib.sha256(data).hexdigest() != mark["sha256"]:
        raise RunError(
            f"{folder / 'metrics.jsonl'} has changed since {by} was written: "
            "put back its first {:,} bytes, or train the run again".format(mark["bytes"])
        )
    return data


def metrics(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; `kind` is "eval" or "log". A half-written last line is left out.

    Raises RunError for any other line that is no record, and where lines have changed that were there when
    result.json or else the newest checkpoint was written.
    """
    if finished(folder):
        by, content = "result.json", result(folder)
    else:
        by, content = "the newest checkpoint", _newest_meta(folder) or {}
    if "records" in content:
        kept = written(folder, content["records"], by)
        if finished(folder) and len(_metrics(folder)) > len(kept):
            raise RunError(
                f"{folder / 'metrics.jsonl'} has more lines than when {by} was written: "
                f"keep its first {len(kept):,} bytes, or train the run again"
            )
    lines = _metrics(folder).split(b"\n")
    out = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not _is_record(record):
            if number == len(lines):
                break
            raise RunError(
                f"{folder / 'metrics.jsonl'} is damaged: line {number} is no record of a training; "
                "put the file back, or train the run again"
            )
        if kind is None or record["kind"] == kind:
            out.append(record)
    return out


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and record.get("kind") in ("log", "eval") and type(record.get("step")) is int


def _metrics(folder: Path) -> bytes:
    path = folder / "metrics.jsonl"
    if not os.path.lexists(path):
        return b""
    with reading(path):
        return regular.read_bytes(path, regular.LARGEST_LOG)
