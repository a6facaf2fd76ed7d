"""fewlabels label --page: one page on this machine, on which a person labels with the keyboard.

The server listens on 127.0.0.1 alone. It answers who knows the random word of its address, and no request that a page
from elsewhere has caused (by Host and Origin). Pictures are asked for by number, read as pictures and written anew: no
path is taken from an address, and no file is sent as it is.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from fewlabels.data.answers import Answer, aliases, called, class_of, number_of, shown
from fewlabels.data.pictures import Decoding, decode
from fewlabels.data.resized import taken
from fewlabels.data.source import Source
from fewlabels.inference.model import decoding_of
from fewlabels.report.ask import page, policy
from fewlabels.report.pictures import enlarged
from fewlabels.report.tasks import Sheet
from fewlabels.runs.run import Run
from fewlabels.runtime.regular import real

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""What the machine may be called in an address."""

LONGEST = 1000
"""Bytes of a request's body."""


class Asked:
    """The questions of a folder, their pictures, and the answers so far."""

    def __init__(self, folder: Path, source: Source, how: Decoding, following: str) -> None:
        """following: the command that takes the answers.

        Raises ValueError where the folder is none of questions about `source`.
        """
        self.sheet, self.source, self.how, self.following = Sheet(folder), source, how, following
        self.lock = threading.Lock()
        places = aliases([called(source, row) for row in range(len(source.labels))])
        names = self.sheet.column("path")
        rows = [number_of(name, places, folder) for name in names]
        if None in rows or not rows:
            what = f"asks about {names[rows.index(None)]}" if rows else "asks about nothing"
            raise ValueError(f"{self.sheet.path} {what}, which is none of the training pictures of {source.name}")
        self.rows = [row for row in rows if row is not None]
        self.files = [real(Path(source.files[row])) for row in self.rows] if source.files else []
        known = aliases(source.classes)
        self.words = [shown(c) if known.get(shown(c)) == i else c for i, c in enumerate(source.classes)]
        """What the table says for each class, and `--answers` understands."""
        every = aliases(source.folders) | known
        try:
            self.labels = [
                class_of(Answer(f"line {i + 2}", names[i], word), every) if word else None
                for i, word in enumerate(self.sheet.column("label"))
            ]
        except ValueError as error:
            raise ValueError(f"{self.sheet.path}: {error}") from None

    def state(self) -> dict[str, Any]:
        """What the page is told (`report.ask.page`)."""
        columns = ("path", "predicted", "confidence", "given")
        rows = zip(*(self.sheet.column(name) for name in columns), self.labels, strict=True)
        keys = ("name", *columns[1:], "label")
        return {
            "title": f"labels for {shown(self.source.name)}",
            "classes": [shown(name) for name in self.source.classes],
            "questions": [dict(zip(keys, row, strict=True)) for row in rows],
            "file": shown(str(self.sheet.path)),
            "next": shown(self.following),
        }

    def picture(self, number: int) -> tuple[bytes, str]:
        """The picture of a question, and its media type.

        Raises ValueError or OSError where it cannot be read, or its name leads to another file than at the beginning.
        """
        row = self.rows[number]
        if not self.files:
            return enlarged(taken(self.source.images, np.array([row]))[0])
        file = Path(self.source.files[row])
        if real(file) != self.files[number]:
            raise ValueError(f"{file} is another file now")
        return enlarged(decode(file, 3, None, self.how))

    def answer(self, number: int, label: int | None) -> None:
        """Save an answer, or take it away. Raises ValueError as `Sheet.put`."""
        with self.lock:
            self.sheet.put(number, "" if label is None else self.words[label])
            self.labels[number] = label

    @property
    def done(self) -> str:
        """How far it is, in words."""
        return f"{sum(label is not None for label in self.labels)} of {len(self.labels)} pictures have an answer"


class Server(ThreadingHTTPServer):
    """The page, at `address`."""

    daemon_threads = True

    def __init__(self, asked: Asked, port: int = 0) -> None:
        """port: 0 takes a free one. Raises OSError where it is taken."""
        self.asked, self.token = asked, secrets.token_urlsafe(24)
        super().__init__((HOST, port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in between is nothing to tell."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"


class Refused(Exception):
    """A request that is not answered: status and sentence."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version, timeout = "fewlabels", "", 60

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def _answered(self, make: Callable[[str], tuple[bytes, str]]) -> None:
        self.nonce = secrets.token_urlsafe(16)
        try:
            data, kind, status = *make(self._place()), 200
        except Refused as refused:
            status, said = refused.args
            data, kind = json.dumps({"error": said}).encode(), "application/json"
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", policy(self.nonce)),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _place(self) -> str:
        """What is asked for, after the token. Raises Refused for requests from elsewhere."""
        hosts = [f"{name}:{self.server.port}" for name in NAMES]
        told, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(told) != 1 or told[0] not in hosts:
            raise Refused(403, "this page has another address")
        if any(origin not in [f"http://{host}" for host in hosts] for origin in origins):
            raise Refused(403, "this page answers no other one")
        _, _, rest = self.path.partition("/")
        token, slash, place = rest.partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "this is not the address that fewlabels label has printed")
        return place

    def _get(self, place: str) -> tuple[bytes, str]:
        asked = self.server.asked
        if not place:
            return page(asked.state(), self.nonce).encode(), "text/html; charset=utf-8"
        kind, _, number = place.partition("/")
        if kind != "picture" or not (number.isascii() and number.isdecimal()) or len(number) > 9:
            raise Refused(404, "there is nothing here")
        if int(number) >= len(asked.rows):
            raise Refused(404, "there is no such picture")
        try:
            return asked.picture(int(number))
        except (ValueError, OSError) as error:
            raise Refused(404, shown(str(error))) from None

    def _post(self, place: str) -> tuple[bytes, str]:
        asked, length = self.server.asked, self.headers.get("Content-Length", "")
        if place != "answer" or not length.isdecimal() or int(length) > LONGEST:
            raise Refused(404, "there is nothing here")
        try:
            told = json.loads(self.rfile.read(int(length)))
            number, label = told["number"], told["label"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Refused(400, "an answer is a number and a label") from None
        known = type(label) is int and 0 <= label < len(asked.words)
        if type(number) is not int or not 0 <= number < len(asked.rows) or not (known or label is None):
            raise Refused(400, "there is no such picture or class")
        try:
            asked.answer(number, label)
        except ValueError as error:
            raise Refused(409, shown(str(error))) from None
        return json.dumps({"done": asked.done}).encode(), "application/json"

    def log_message(self, *args: object) -> None:
        """The terminal stays quiet."""


def serve(run: Run, folder: Path, source: Source, port: int) -> int:
    """Show the questions of a folder until Ctrl-C. Raises ValueError for a folder that is none, or a port that is
    taken."""
    answers = f"fewlabels label {quote(str(run.path))} --answers {quote(str(folder / 'label.csv'))}"
    asked = Asked(folder, source, decoding_of(run.config.data), answers)
    try:
        server = Server(asked, port)
    except OSError as error:
        raise ValueError(f"--port {port} cannot be had: {error.strerror}") from None
    with server:
        print(f"label at {server.address}\nCtrl-C ends; each answer is saved", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    print(f"{asked.done}, in {asked.sheet.path}\nnext: {answers}")
    return 0
