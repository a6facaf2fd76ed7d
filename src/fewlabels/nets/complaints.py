"""What the libraries of `fewlabels.nets.zoo` complain about, in one sentence of ours."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from fewlabels.runtime import parallel
from fewlabels.runtime.words import nearest


@contextlib.contextmanager
def sentence(name: str, shape: tuple[int, int, int], patch: int | None) -> Iterator[None]:
    """Complaints of the library about the shape as one sentence of ours."""
    try:
        yield
    except (AssertionError, RuntimeError, TypeError, IndexError, ZeroDivisionError) as error:
        lines = str(error).strip().splitlines()
        reason = f" ({lines[0].rstrip('.')})" if lines else ""
        patches = f" in patches of {patch}" if patch is not None else ""
        size = " x ".join(map(str, shape))
        raise ValueError(f"net {name!r} cannot have images of {size}{patches}{reason}") from None


@contextlib.contextmanager
def hub(name: str) -> Iterator[None]:
    """Rank 0 fetches what is not in the cache; without network, that is said in one sentence, and at once."""
    try:
        with parallel.first(), offline_if_so(name):
            yield
    except (OSError, RuntimeError) as error:
        reason = str(getattr(error, "reason", "") or error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"the pretrained weights of net {name!r} are not in the cache and cannot be fetched ({reason}); "
            "give a local file with --net.pretrained FILE"
        ) from None


@contextlib.contextmanager
def offline_if_so(name: str) -> Iterator[None]:
    """Tell the hub's client that there is no network, where there is none: it would try again for a minute."""
    if not name.startswith("timm:") or urllib.request.getproxies():
        yield
        return
    from huggingface_hub import constants

    before, unreachable = constants.HF_HUB_OFFLINE, None
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError as error:
        constants.HF_HUB_OFFLINE, unreachable = True, error
    try:
        yield
    except OSError as error:
        raise unreachable or error from None
    finally:
        constants.HF_HUB_OFFLINE = before


def unknown(name: str, word: str, known: list[str], what: str = "net") -> str:
    library = name.partition(":")[0]
    some = ", ".join(known) if len(known) < 10 else f"{len(known)} names"
    hint = nearest(word, known, most=3, cutoff=0.5) or f"; it knows {some}"
    return f"net {name!r} is unknown: {library} has no {what} {word!r}{hint}"
