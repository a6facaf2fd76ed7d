"""`fewlabels label --page`: what the server answers to whom, and a person with a keyboard in a real browser."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from browser import BROWSER, NONE, Browser
from conftest import Trained
from fewlabels.commands.label_page import Asked, Server
from fewlabels.config.resolve import load_source
from fewlabels.data.answers import with_answers
from fewlabels.data.arrays import from_arrays
from fewlabels.data.pictures import PLAIN
from fewlabels.report import tasks
from fewlabels.report.ask import page
from fewlabels.report.tasks import Question, Sheet
from fewlabels.runs.run import Run
from serving import in_a_thread


class Got(NamedTuple):
    status: int
    kind: str
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@contextmanager
def serving(asked: Asked) -> Iterator[Server]:
    with Server(asked) as server, in_a_thread(server):
        yield server


def ask(server: Server, place: str, body: Any = None, *, path: str | None = None, **headers: str) -> Got:
    """One request; `place` is what follows the token, `path` the whole path instead."""
    told = {name.title(): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("GET" if body is None else "POST", path or f"/{server.token}/{place}", skip_host=True)
    data = b"" if body is None else json.dumps(body).encode()
    for name, value in {"Host": f"127.0.0.1:{server.port}", "Content-Length": str(len(data)), **told}.items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    got = Got(answer.status, answer.headers.get("Content-Type", ""), answer.read())
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    connection.close()
    return got


def labels(folder: Path) -> list[str]:
    with (folder / "label.csv").open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


@pytest.fixture
def questions(photo_run: Trained, command: Callable[..., Any], tmp_path: Path) -> Path:
    """Six questions about the unlabeled pictures of `photos`."""
    folder = tmp_path / "ask"
    assert command("label", photo_run.path, "-n", 6, "-o", folder).code == 0
    return folder


@pytest.fixture
def asked(questions: Path, photo_run: Trained) -> Asked:
    run = Run(photo_run.path)
    return Asked(questions, load_source(run.config.data, size=(16, 16)), PLAIN, "next")


def test_answers_are_saved_one_after_another(asked: Asked, questions: Path, photo_run: Trained) -> None:
    before = (questions / "label.csv").read_bytes()
    with serving(asked) as server:
        first = ask(server, "")
        assert first.status == 200 and first.kind.startswith("text/html") and b"<script nonce=" in first.body
        for number, label, wanted in (
            (0, 1, ["red"]),
            (3, 0, ["red", "", "", "blue"]),
            (0, 0, ["blue", "", "", "blue"]),
        ):
            assert ask(server, "answer", {"number": number, "label": label}).status == 200
            assert labels(questions)[: len(wanted)] == wanted
        assert not [p.name for p in questions.iterdir() if p.name.startswith(".")]
        source, run = asked.source, Run(photo_run.path)
        split, counts = with_answers(run.split, source, questions / "label.csv")
        assert (counts.new, counts.empty) == (2, 4) and len(np.unique(split.labeled)) == 10
        for number in (0, 3):
            assert ask(server, "answer", {"number": number, "label": None}).status == 200
        assert (questions / "label.csv").read_bytes() == before
        picture = ask(server, "picture/2")
        file = asked.source.files[asked.rows[2]]
        assert picture.kind == "image/png"
        assert (np.asarray(Image.open(io.BytesIO(picture.body))) == np.asarray(Image.open(file))).all()


def test_a_table_that_another_program_has_changed_is_not_written_over(asked: Asked, questions: Path) -> None:
    file = questions / "label.csv"
    mine = file.read_text().replace("label\n", "label,mine\n", 1)
    file.write_text(mine)
    with serving(asked) as server:
        got = ask(server, "answer", {"number": 0, "label": 1})
        assert got.status == 409 and "was changed by another program" in got.error
    assert file.read_text() == mine and asked.labels[0] is None


def test_further_columns_and_earlier_answers_stay(asked: Asked, questions: Path) -> None:
    file = questions / "label.csv"
    head, *rows = csv.reader(io.StringIO(file.read_text()))
    for i, row in enumerate(rows):
        row[head.index("label")] = "red" if i == 1 else ""
        row.append(f"a, note {i}")
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([[*head, "note"], *rows])
    again = Asked(questions, asked.source, PLAIN, "next")
    assert again.labels == [None, 1, None, None, None, None] and again.done == "1 of 6 pictures have an answer"
    again.answer(0, 0)
    with file.open(newline="") as told:
        found = list(csv.DictReader(told))
    assert [row["note"] for row in found] == [f"a, note {i}" for i in range(6)]
    assert [row["label"] for row in found] == ["blue", "red", "", "", "", ""]


@pytest.mark.slow
def test_requests_from_elsewhere_are_refused(asked: Asked, questions: Path) -> None:
    answer = {"number": 0, "label": 1}
    with serving(asked) as server:
        own, other = f"127.0.0.1:{server.port}", server.port + 1
        for host in (
            "evil.example",
            f"evil.example:{server.port}",
            f"127.0.0.1:{other}",
            "127.0.0.1",
            "",
            f"{own}.evil",
        ):
            got = ask(server, "answer", answer, host=host)
            assert got.status == 403 and got.error == "this page has another address", host
        for origin in (
            "http://evil.example",
            "null",
            f"https://{own}",
            f"http://127.0.0.1:{other}",
            f"http://{own}.evil",
        ):
            for body in (None, answer):
                got = ask(server, "answer" if body else "", body, origin=origin)
                assert got.status == 403 and got.error == "this page answers no other one", origin
        for path in (
            "/",
            "/picture/0",
            "/answer",
            "//",
            f"/{server.token}",
            f"/{server.token[:-1]}/",
            "/%00/",
        ):
            for body in (None, answer):
                assert ask(server, "", body, path=path).status == 403, path
        assert labels(questions) == [""] * 6
        for name in ("127.0.0.1", "localhost"):
            here = f"{name}:{server.port}"
            assert ask(server, "answer", answer, host=here, origin=f"http://{here}").status == 200
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32


@pytest.mark.slow
def test_no_other_file_is_served(asked: Asked, questions: Path, photo_run: Trained, tmp_path: Path) -> None:
    """`..`, absolute paths, names, and a picture that became a link to another file."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "white").save(secret)
    with serving(asked) as server:
        for place in (
            "picture/../../../../../../../../etc/passwd",
            "picture//etc/passwd",
            "picture/%2e%2e/%2e%2e/etc/passwd",
            f"picture/{secret}",
            f"picture/{asked.source.files[0]}",
            "picture/-1",
            "picture/0.0",
            "picture/%30",
            "picture/6",
            "picture/" + "9" * 5000,
            "picture/",
            "picture",
            "label.csv",
            "../label.csv",
            "/etc/passwd",
        ):
            got = ask(server, "", path=f"/{server.token}/{place}")
            assert got.status == 404 and got.kind == "application/json", place
        for bad in (
            {"number": 6, "label": 0},
            {"number": -1, "label": 0},
            {"number": 0, "label": 2},
            {"number": True},
            [],
        ):
            assert ask(server, "answer", bad).status == 400
        for bad in ({"number": 0, "label": "red"}, {"number": "0", "label": 0}, {"number": 0, "label": True}):
            assert ask(server, "answer", bad).status == 400
        assert ask(server, "answer", {"number": 0, "label": 0, "more": "x" * 2000}).status == 404
        file = Path(asked.source.files[asked.rows[0]])
        kept = file.rename(tmp_path / "kept.png")
        try:
            for target in (secret, Path("/etc/passwd")):
                file.symlink_to(target)
                got = ask(server, "picture/0")
                assert got.status == 404 and "is another file now" in got.error
                file.unlink()
            file.write_text("no picture")
            assert ask(server, "picture/0").status == 404
        finally:
            os.replace(kept, file)
        assert ask(server, "picture/0").status == 200
    assert labels(questions) == [""] * 6


@pytest.mark.slow
def test_the_command(
    photo_run: Trained, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder lies beside the run; the same command goes on; Ctrl-C is the end."""
    path = tmp_path / "run"
    shutil.copytree(photo_run.path, path)

    def person(self: Server, poll_interval: float = 0.5) -> None:
        assert self.server_address[0] == "127.0.0.1"
        free = self.asked.labels.index(None)
        self.asked.answer(free, 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", person)
    said = command("label", path, "--page", "-n", 3)
    folder = tmp_path / "run-label"
    assert said.code == 0 and "label at http://127.0.0.1:" in said.out and labels(folder) == ["blue", "", ""]
    assert f"1 of 3 pictures have an answer, in {folder / 'label.csv'}" in said.out
    assert f"next: fewlabels label {path} --answers {folder / 'label.csv'}" in said.out
    assert command("label", path, "--page").code == 0 and labels(folder) == ["blue", "blue", ""]
    assert "has its questions" in command("label", path, "--page", "-n", 3).sentence
    assert "leave out --answers" in command("label", path, "--page", "--answers", "x.csv").sentence
    assert "--port is a number from 0 to 65535" in command("label", path, "--page", "--port", 70000).sentence
    assert "for --page" in command("label", path, "-o", tmp_path / "new", "--port", 80).sentence
    (tmp_path / "empty").mkdir()
    assert "label.csv cannot be read" in command("label", path, "--page", "-o", tmp_path / "empty").sentence
    (folder / "label.csv").write_text("path,label\n/somewhere/else.png,\n")
    assert "asks about /somewhere/else.png" in command("label", path, "--page").sentence
    busy = Server(Asked.__new__(Asked))
    (folder / "label.csv").write_text(f"path,label\n{load_source(Run(path).config.data).files[0]},\n")
    assert f"--port {busy.port} cannot be had" in command("label", path, "--page", "--port", busy.port).sentence
    busy.server_close()


NAMES = [
    "<script>hacked=1</script>",
    "=cmd()",
    'it\'s "so"',
    "مرحبا",
    "x" * 300,
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
]


def many(tmp_path: Path) -> Asked:
    """Five questions about pictures in memory, of eleven classes, the hostile ones first."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (22, 12, 12, 3), np.uint8)
    source = from_arrays(images, np.arange(22) % 11, classes=NAMES)
    rows = range(5)
    asks = [Question(f"training image {row}", "", NAMES[row], 0.25) for row in rows]
    tasks.write(tmp_path / "many", asks, images[:5], source.classes, "title")
    return Asked(tmp_path / "many", source, PLAIN, "next <b>")


def test_hostile_names_come_back(tmp_path: Path) -> None:
    asked = many(tmp_path)
    for number in range(5):
        asked.answer(number, number)
    again = Asked(tmp_path / "many", asked.source, PLAIN, "next")
    assert again.labels == [0, 1, 2, 3, 4] and Sheet(tmp_path / "many").column("label") == NAMES[:5]
    assert json.dumps(asked.state()).count("</script>") == 2
    assert page(asked.state(), "n").count("</script>") == 2  # its own, of the state and of the program


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=NONE)
def test_with_a_keyboard(asked: Asked, questions: Path, tmp_path: Path) -> None:
    done = "document.getElementById('done').textContent"
    shown = "document.getElementById('picture').alt"
    with serving(asked) as server, Browser(tmp_path / "profile") as browser:
        for width in (390, 1280):
            for dark in (False, True):
                browser.open(server.address, width=width, dark=dark)
                browser.wait("document.getElementById('picture').naturalWidth", 16)
                assert browser.value("document.documentElement.scrollWidth") <= width
        browser.press("2")
        browser.wait(done, "1 of 6")
        assert labels(questions) == ["red", "", "", "", "", ""] and browser.value(shown) == "picture 2"
        browser.press("7")  # no such class
        browser.press("s")
        browser.wait(shown, "picture 3")
        browser.press("1")
        browser.wait(done, "2 of 6, 1 skipped")
        assert labels(questions) == ["red", "", "blue", "", "", ""]
        browser.press("u")
        browser.wait(shown, "picture 3")
        assert labels(questions) == ["red", "", "", "", "", ""]
        browser.press("u")
        browser.wait(shown, "picture 2")
        browser.press("u")
        browser.wait(done, "0 of 6")
        assert labels(questions) == [""] * 6 and browser.value(shown) == "picture 1"
        browser.press("Enter")  # the guess
        browser.wait(done, "1 of 6")
        assert labels(questions)[0] == asked.sheet.column("predicted")[0]
        for i in range(2, 7):
            browser.press("s" if i == 4 else "1")
            browser.wait(f"{shown} !== 'picture {i}' || {done}.startsWith('5')")
        browser.wait(done, "5 of 6, 1 skipped")
        assert browser.value("document.querySelector('.stage').offsetHeight") == 0
        assert "r show the 1 skipped again" in browser.value("document.getElementById('end').textContent")
        browser.press("r")
        browser.wait(shown, "picture 4")
        browser.press("2")
        browser.wait(done, "6 of 6")
        assert labels(questions)[1:] == ["blue", "blue", "red", "blue", "blue"]
        assert "Every picture has an answer" in browser.value("document.getElementById('end').textContent")
        assert all(address.startswith(server.address) for address in browser.asked) and browser.said == []
        server.shutdown()
        server.server_close()
        browser.press("u")
        browser.wait("document.getElementById('error').textContent", "Not saved: fewlabels label has ended")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=NONE)
def test_more_than_nine_classes(tmp_path: Path) -> None:
    """A class is found by its name; it then has the next key. Names are text."""
    asked, folder = many(tmp_path), tmp_path / "many"
    done = "document.getElementById('done').textContent"
    with serving(asked) as server, Browser(tmp_path / "profile") as browser:
        browser.open(server.address, width=390)
        assert browser.value("document.documentElement.scrollWidth") <= 390
        browser.press("1")  # nothing has a key yet
        browser.press("f", "t", "h", "r", "Enter")
        browser.wait(done, "1 of 5")
        browser.press("f", "f", "ArrowDown", "Enter")  # four, five
        browser.wait(done, "2 of 5")
        browser.press("1")
        browser.wait(done, "3 of 5")
        browser.press("f", "z", "z", "Enter", "Escape", "2")
        browser.wait(done, "4 of 5")
        browser.press("f", "<", "s", "Enter")
        browser.wait(done, "5 of 5")
        assert labels(folder) == ["three", "five", "three", "five", NAMES[0]]
        assert browser.value("window.hacked === undefined && document.scripts.length === 2") is True
        assert browser.said == []
        browser.open("about:blank")
        browser.open(server.address, width=1280)
        browser.wait(done, "5 of 5")
        assert browser.value("document.getElementById('keys').textContent") == f"1 three2 five3 {NAMES[0]}"
