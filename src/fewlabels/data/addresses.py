"""Which tar files a URL means, and in which state they are, through fsspec and the packages of its protocols."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from fewlabels.data.contents import part_of
from fewlabels.data.tars import ENDING
from fewlabels.runtime.urls import bare
from fewlabels.runtime.words import first, reason

STATES = (
    *("ETag", "etag", "md5Hash", "crc32c", "Content-MD5", "content_md5"),
    *("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created"),
)
"""Words by which fsspec's protocols tell a file's state, the surest first."""

MOST_FILES = 100_000
"""Of one pattern."""

ASKED_AT_ONCE = 16


class Unreachable(Exception):
    """What is at a URL cannot be learned now; the message is the sentence for the user."""


class Found(NamedTuple):
    """A tar file as the server has it."""

    address: str
    """As the file system has it."""
    size: int
    state: str
    """What changes when it does; empty where the server says nothing but the size."""


def names_in(pattern: str) -> list[str]:
    """The names that ``{000..123}`` and ``{a,b}`` in a pattern stand for, in their order, as in a shell.

    Raises ValueError for braces that mean neither, and for more than `MOST_FILES` names.
    """
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise ValueError(f"{pattern} has a brace alone; a pattern is {{000..123}} or {{a,b}}")
        return [pattern]
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", match[1], re.ASCII)
    if numbers is not None:
        low, high = int(numbers[1]), int(numbers[2])
        if not 0 <= high - low < MOST_FILES:
            raise ValueError(f"{pattern}: {match[0]} must go up, by less than {MOST_FILES}")
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        words = [f"{number:0{width}}" for number in range(low, high + 1)]
    elif "," in match[1]:
        words = match[1].split(",")
    else:
        raise ValueError(f"{pattern}: {match[0]} is no pattern; one is {{000..123}} or {{a,b}}")
    rest = names_in(pattern[match.end() :])
    if len(words) * len(rest) > MOST_FILES:
        raise ValueError(f"{pattern} means more than {MOST_FILES} files")
    return [pattern[: match.start()] + word + end for word in words for end in rest]


def found_at(url: str) -> tuple[Any, dict[str, Found]]:
    """fsspec's file system, and the tar files by their names below the place that `url` means, sorted.

    Raises:
        Unreachable: a package is missing, the server does not answer, or it does not have what is asked for.
        ValueError: the URL means no tar files.
    """
    try:
        return _found_at(url)
    except ImportError as error:
        package = getattr(error.__cause__ or error, "name", None) or "fsspec"
        how = "'fewlabels[url]'" if package in ("fsspec", "aiohttp") else package
        raise Unreachable(f"{url} needs the package {package!r}: pip install {how}") from None
    except FileNotFoundError as error:
        why = f" ({bare(reason(error.__cause__))})" if error.__cause__ else ""  # http says of any failure that none is
        raise Unreachable(f"{url} is not there, or not reached: {bare(reason(error))}{why}") from None
    except (Unreachable, ValueError):
        raise
    except Exception as error:  # the kinds of each protocol's package
        raise Unreachable(f"{url} was asked for its tar files, and cannot be reached: {bare(reason(error))}") from None


def _found_at(url: str) -> tuple[Any, dict[str, Found]]:
    top = url.partition("{")[0].rpartition("/")[0] if _names_files(url) else url.rstrip("/")
    system, root = _system(top)
    if _names_files(url):
        names = names_in(url[len(top) + 1 :])
        told: dict[str, Mapping[str, Any]] = {name: {"name": f"{root}/{name}"} for name in names}
    else:
        told = dict(_below(root, system.find(root, maxdepth=2, detail=True)))
    if not told:
        raise ValueError(
            f"there are no tar files at {url}, nor in folders labeled, unlabeled or test there; on a web server that "
            "lists no folders name the files, such as shards/{000..123}.tar"
        )
    for name in told:
        if not name.endswith(ENDING) or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"{url} means {name!r}, and no tar file below it")
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        facts = list(pool.map(lambda one: one if one.get("size") is not None else _asked(system, one), told.values()))
    if unknown := [name for name, one in zip(told, facts, strict=True) if one.get("size") is None]:
        raise ValueError(
            f"the server does not say how large {first(unknown, 3)} of {url} is, so no copy can be checked"
        )
    return system, dict(sorted((name, _found(one)) for name, one in zip(told, facts, strict=True)))


def _names_files(url: str) -> bool:
    return "{" in url or "}" in url or url.endswith(ENDING)


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises ImportError, ValueError for an unknown protocol."""
    import fsspec

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        # its own limit is five minutes for a whole file; with trust_env it takes proxies and ~/.netrc
        limits = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options["client_kwargs"] = {"timeout": limits, "trust_env": True}
    try:
        system, root = fsspec.url_to_fs(url, **options)
    except ValueError as error:
        raise ValueError(f"{url}: {reason(error)}") from None
    system.invalidate_cache()  # of folders as they were when this process asked before
    return system, root.rstrip("/")


def _below(root: str, listed: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tar files right in a folder and in its parts, by the rest of their names."""
    for path, facts in listed.items():
        name = path.removeprefix(root).strip("/")
        parts = PurePosixPath(name).parts
        usual = path.startswith(root) and name.endswith(ENDING) and not any(part.startswith(".") for part in parts)
        if usual and (len(parts) == 1 or part_of(parts[0]) is not None):
            yield name, {**facts, "name": path}


def _asked(system: Any, one: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**system.info(one["name"]), "name": one["name"]}


def _found(facts: Mapping[str, Any]) -> Found:
    state = next((f"{word} {facts[word]}" for word in STATES if facts.get(word) is not None), "")
    return Found(str(facts["name"]), int(facts["size"]), state)
