"""Addresses such as s3://bucket/prefix, and texts that show them without what is secret in them."""

from __future__ import annotations

import re

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>]*)")


def is_url(text: object) -> bool:
    """Whether it is the text of an address, and no path."""
    return isinstance(text, str) and _URL.match(text) is not None


def bare(text: str) -> str:
    """The text with each address in it cut down to protocol, host and path: no user, no password, no query."""
    return _URL.sub(lambda match: match[1] + _cut(match[2]), text)


def _cut(rest: str) -> str:
    """What follows the protocol of an address, without secrets."""
    plain = re.split(r"[?#]", rest)[0]
    if "@" in rest[len(plain) :]:
        return "..."  # of a query or of a password: that cannot be told
    head, at, tail = plain.rpartition("@")
    return tail if at and (":" in head or "/" not in head) else plain


def stem_of(url: str) -> str:
    """What data at a URL are called: the last part of its path that is no pattern, without ``.tar``."""
    parts = [part for part in url.partition("://")[2].split("/") if part and "{" not in part]
    return (re.sub(r"[^\w.-]", "-", parts[-1].removesuffix(".tar")).lstrip(".") if parts else "") or "data"


def check_bare(what: str, url: str) -> None:
    """Raise ValueError for an address with a user, a password or a query: it would be kept in run folders and shown."""
    protocol, _, rest = url.partition("://")
    if (shown := f"{protocol}://{_cut(rest)}") != url:
        raise ValueError(
            f"{what} {shown} was given with a user, a password or a query (?), which a run folder would keep for "
            "others to read: leave it out, and give the key as the protocol's own tools take it (~/.netrc for http, "
            "AWS_ACCESS_KEY_ID or ~/.aws for s3, GOOGLE_APPLICATION_CREDENTIALS for gs)"
        )
