"""Models on the Hugging Face hub: what is uploaded to a stand-in of it on this machine, and fetched from there.

The stand-in speaks as much of the hub's API as its client, huggingface_hub, asks for: https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import constants

import fewlabels as fl
from conftest import Trained
from fewlabels.inference import hub
from fewlabels.inference.deploy import noise
from fewlabels.inference.model import load_predictor
from fewlabels.report.card import card, text
from fewlabels.report.story import tell
from fewlabels.runs.run import Run
from serving import in_a_thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: files by repository and name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self) -> None:
        self.answer({"error": "not found"}, 404, **{"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}" if told.get("organization") else told["name"]
            known = name in self.server.files
            self.server.files.setdefault(name, {".gitattributes": b""})
            self.server.private.setdefault(name, told.get("private") or told.get("visibility") == "private")
            self.answer({"url": f"{self.server.address}/{name}", "error": "exists"}, 409 if known else 200)
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            wanted = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for p in wanted]
            self.answer({"files": modes})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[match[1]][line["value"]["path"]] = content
            commit = f"{self.server.address}/{match[1]}/commit/{COMMIT}"
            self.answer({"commitUrl": commit, "commitOid": COMMIT, "success": True})
        else:
            self.missing()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            if (files := self.server.files.get(match[1])) is None:
                return self.missing()
            return self.answer({"id": match[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            if (files := self.server.files.get(match[1])) is None:
                return self.missing()
            rows = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in files.items()
            ]
            return self.answer(rows)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.server.files.get(match[1], {}).get(match[2])
            if data is not None:
                return self.answer(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')
        return self.missing()

    do_HEAD = do_GET


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, in the place of HF_ENDPOINT, with a cache of its own."""
    with Hub() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_word")
        with in_a_thread(made):
            yield made


@pytest.mark.slow
def test_there_and_back(
    photo_run: Trained, photos: Path, server: Hub, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Nothing goes without --yes; what went predicts as the run does; what is there is not replaced."""
    word = ("export", photo_run.path, "--to", "hub:me/red-blue")
    assert "look at it with --dry-run, then say --yes" in command(*word).sentence
    shown = command(*word, "--dry-run", "--licence", "MIT")
    assert shown.code == 0 and shown.out.endswith("nothing was uploaded\n") and not server.asked
    said = command(*word, "--yes", "--licence", "MIT")
    assert said.code == 0 and said.err == "" and said.out.endswith("/me/red-blue, a private repository\n"), said
    files = server.files["me/red-blue"]
    assert server.private["me/red-blue"]
    listed = re.findall(r"^  (\S+)  [\d.]+ \w+$", shown.out, re.M)
    assert (
        listed
        == sorted({*files} - {".gitattributes"})
        == [
            "README.md",
            "checkpoints/best-00000040/meta.json",
            "checkpoints/best-00000040/weights.safetensors",
            "config.json",
            "data.json",
            "split.json",
        ]
    )
    assert files["README.md"].decode() in shown.out
    for name, data in files.items():  # nothing of this machine, nothing of the pictures
        assert str(photos.parent).encode() not in data and b".png" not in data, name
    again = command(*word, "--yes")
    assert again.code == 2 and "--to hub:me/red-blue: it holds files already (README.md)" in again.sentence

    pictures = sorted((photos / "test").rglob("*.png"))
    mine, theirs = (command("predict", run, *pictures, "--probabilities") for run in (photo_run.path, "hf:me/red-blue"))
    assert theirs.code == 0 and theirs.out == mine.out and theirs.out.count("\n") == 9
    loaded = fl.load(f"hf:me/red-blue@{COMMIT}")
    assert (loaded.predict(pictures) == fl.load(photo_run.path).predict(pictures)).all()
    fetched = {line.rpartition("/")[2] for line in server.asked if "/resolve/" in line}
    assert "README.md" not in fetched and "weights.safetensors" in fetched


@pytest.mark.slow
def test_the_hub_has_no_such_model(server: Hub, command: Callable[..., Any], photos: Path) -> None:
    picture = next(photos.rglob("*.png"))
    said = command("predict", "hf:me/nothing", picture)
    assert said.code == 2 and said.sentence.startswith("hf:me/nothing: ")
    server.files["me/other"] = {"model.bin": b"x"}
    said = command("predict", "hf:me/other", picture)
    assert said.sentence == "hf:me/other: it is no model of fewlabels: it has no config.json"
    asked = len(server.asked)
    for name in ("hf:me", "hf:../x/y", "hf:me/../you", "hf:"):
        said = command("predict", name, picture)
        assert said.code == 2 and "must name a repository of the hub, OWNER/NAME" in said.sentence
    assert len(server.asked) == asked


@pytest.mark.slow
@pytest.mark.parametrize("part", ["config.json", "data.json"])
def test_a_model_that_names_a_file_of_this_machine_is_refused(
    part: str, photo_run: Trained, server: Hub, command: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    hub.bundle(Run(photo_run.path), path, noise((3, 16, 16), 4))
    content = json.loads((path / part).read_text())
    if part == "config.json":
        content["train"]["net"]["pretrained"] = "/etc/weights.pth"
    else:
        content["body"] = {"weights": "/etc/weights.pth", "sha256": "0"}
    (path / part).write_text(json.dumps(content))
    server.files["me/bad"] = {str(f.relative_to(path)): f.read_bytes() for f in hub.contents(path)}
    said = command("predict", "hf:me/bad", photo_run.path)
    assert said.sentence == "hf:me/bad wants weights from a file of this machine, and is refused"


def test_asked_wrongly(digits_run: Trained, command: Callable[..., Any]) -> None:
    run = digits_run.path
    assert command("export", run, "--to", "onx").sentence.startswith(
        "--to must be onnx, torch, safetensors, openvino or hub:OWNER/NAME, got 'onx'"
    )
    assert "--yes is for --to hub:OWNER/NAME" in command("export", run, "--yes").sentence
    assert "must name a repository of the hub" in command("export", run, "--to", "hub:me", "--dry-run").sentence
    said = command("export", run, "--to", "hub:me/x", "--dry-run", "--checkpoint", "best")
    assert "leave out -o, --checkpoint and --weights" in said.sentence


@pytest.mark.slow
def test_a_body_that_does_not_learn_goes_along(tmp_path: Path) -> None:
    """Of a frozen run and of one with bypasses, whose body lies in a file of this machine."""
    import safetensors.torch

    from algorithm_cases import SHAPE, toy, toy_training
    from fewlabels import nets

    body = nets.build("timm:test_vit", classes=3, shape=SHAPE, patch=4)
    safetensors.torch.save_file(body.state_dict(), tmp_path / "mine.safetensors")
    for learns in ("head", "lora"):
        net = fl.Net("timm:test_vit", patch=4, train=learns, pretrained=str(tmp_path / "mine.safetensors"))
        run = fl.train(toy_training(fl.FixMatch(), steps=2, net=net), out=tmp_path / learns, source=toy())
        path, images = tmp_path / f"{learns}-model", noise(SHAPE, 9)
        assert hub.bundle(run, path, images).largest < 1e-6
        assert (path / "body.safetensors").exists() == (learns == "head")
        assert str(tmp_path).encode() not in b"".join(f.read_bytes() for f in hub.contents(path))
        found = load_predictor(Run(shutil.move(path, tmp_path / f"{learns}-elsewhere"))).logits(images)
        np.testing.assert_allclose(found, load_predictor(run).logits(images), atol=1e-5)


HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "`x` [l](http://e) **b**",
    "line\nbreak",
    "=cmd()",
    "a\u202eb",
    "x" * 300,
]


def test_names_are_text_in_the_card(digits_run: Trained) -> None:
    story = tell(digits_run.path)
    names = HOSTILE + list("789")
    hostile = replace(story, data={**story.data, "classes": names})
    made = card(hostile, "me/x", '"odd" licence: x\n# y')
    front, body = made.split("---\n", 2)[1:]
    told = yaml.safe_load(front)
    assert told["license"] == "other" and told["license_name"] == '"odd" licence: x\n# y'
    assert told["library_name"] == "fewlabels" and told["pipeline_tag"] == "image-classification"
    assert "<script" not in made and "\u202e" not in made and "](http" not in body
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    for name, row in zip(names, rows[-10:], strict=True):
        cells = re.split(r"(?<!\\)\|", row)
        assert len(cells) == 8 and cells[1].strip() == text(name)


def test_the_card_has_the_report_s_numbers(digits_run: Trained) -> None:
    run, story = Run(digits_run.path), tell(digits_run.path)
    made = card(story, "me/digits", "Apache-2.0")
    assert yaml.safe_load(made.split("---\n")[1])["license"] == "apache-2.0"
    assert f"{run.result['accuracy']:.1f} ±" in made and "of 360 test pictures" in made
    assert "40 labels, 1,337 unlabeled, 100 validation and 360 test pictures" in made
    per_class = run.metrics("eval")[-1]["test"]["ema"]["per_class"]
    for name, recall in per_class.items():
        assert re.search(rf"^\| {name} \| \d+ \| \d+ \| {recall:.1f} \|", made, re.M)


def test_the_card_says_where_other_weights_were_measured(digits_run: Trained) -> None:
    """A run that was killed is measured at one step, and keeps the weights of another."""
    story = tell(digits_run.path)
    told = "The model was measured after 120 steps, and the weights here are those after 100."
    assert told in card(story, "me/x", step=100) and "measured after" not in card(story, "me/x", step=120)
