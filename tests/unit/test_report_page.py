"""The page about a run or several: what it says, that it holds all it shows, and that names are text in it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

import fewlabels as fl
from browser import BROWSER, NONE, Browser
from fewlabels.config.resolve import load_source
from fewlabels.data.arrays import from_arrays
from fewlabels.report import evidence
from fewlabels.report.charts import Series, curves, plain, thinned, ticks
from fewlabels.report.markup import Markup, name, tag, text
from fewlabels.report.numbers import Counts, against, distance, in_use, margin
from fewlabels.report.pictures import SIDE, encoded
from fewlabels.report.story import tell
from fewlabels.report.write import LARGEST, rendered
from fewlabels.runs.folder import EVIDENCE, PAGE
from fewlabels.runs.run import Run
from fewlabels.runtime.streams import visible

HOSTILE = [
    "<script>window.hacked=1</script>",
    "\"><img src=x onerror='window.hacked=1'>",
    "=cmd('calc')",
    "two\nlines & a tab\t",
    "ع" * 300,
    "\u202egnp.exe",
]
"""Names of classes; all of them but the last but one are file names too, without a slash."""


class Page(HTMLParser):
    """A parsed page: every element with its attributes, its text, and its tables."""

    VOID = ("br", "img", "meta")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(source)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, kind: str, attributes: Any) -> None:
        self.elements.append((kind, {k: v or "" for k, v in attributes}))
        if kind not in self.VOID:
            self.open.append(kind)
        if kind == "table":
            self.tables.append([])
        if kind == "tr":
            self.tables[-1].append([])
        if kind in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, kind: str) -> None:
        assert self.open.pop() == kind

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            assert "url(" not in data and "@import" not in data
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table(self, *heads: str) -> list[list[str]]:
        """The rows of the table that begins with these heads."""
        return next(t[1:] for t in self.tables if t[0][: len(heads)] == list(heads))


ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "section", "div", "p", "h1", "h2", "h3", "b", "span"),
    *("bdi", "br", "small", "code", "pre", "ul", "li", "i", "dl", "dt", "dd", "details", "summary", "footer"),
    *("figure", "figcaption", "img", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "line", "text", "polyline", "circle", "rect"),
}


def checked(source: str | bytes) -> Page:
    """A page that holds all it shows: no script, no link, no address but data: ones."""
    source = source.decode() if isinstance(source, bytes) else source
    page = Page(source)
    assert {kind for kind, _ in page.elements} <= ALLOWED
    for kind, attributes in page.elements:
        assert not [a for a in attributes if a.startswith("on") or a in ("href", "srcset", "action", "data")]
        assert ("src" in attributes) == (kind == "img")
        assert kind != "img" or re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", attributes["src"])
        assert "url(" not in attributes.get("style", "")
    assert len(source.encode()) <= LARGEST
    return page


def page_of(path: Path) -> Page:
    return checked((path / PAGE).read_bytes())


# ---- numbers, from other programs


def test_counts_are_scikit_learn_s() -> None:
    rng = np.random.default_rng(1)
    truth, called = rng.integers(0, 5, (2, 200))
    truth[truth == 3] = 0  # a class without pictures
    rows = [[i, j, int(((truth == i) & (called == j)).sum())] for i in range(5) for j in range(5)]
    counts = Counts.of(5, rows)
    precision, recall, f1, support = precision_recall_fscore_support(truth, called, labels=range(5), zero_division=0)
    for c in range(5):
        assert counts.true[c] == support[c]
        assert counts.precision(c) == pytest.approx(100 * precision[c])
        assert counts.recall(c) == (pytest.approx(100 * recall[c]) if support[c] else None)
        assert counts.f1(c) == pytest.approx(100 * f1[c])
    assert counts.images == 200 and sum(n for _, _, n in counts.mistakes()) == (truth != called).sum()
    amounts = [n for _, _, n in counts.mistakes()]
    assert amounts == sorted(amounts, reverse=True)
    c, n = counts.most_taken_for(0)  # type: ignore[misc]
    assert n == max(((truth == 0) & (called == j)).sum() for j in range(1, 5)) and c != 0


def test_small_numbers_by_hand() -> None:
    # Wilson's intervals: 40.4 to 59.6 of 50 in 100, 72.2 to 100 of 10 in 10
    assert margin(50.0, 100) == pytest.approx(9.6, abs=0.05) and margin(100.0, 10) == pytest.approx(13.9, abs=0.05)
    # that of 36.5 is 9.3, and sqrt(9.6^2 + 9.3^2) = 13.4
    assert [against(50.0, other, 100) for other in (36.8, 36.0, 63.2, 64.0)] == ["alike", "better", "alike", "worse"]
    assert distance([1, 1], [3, 1]) == 0.25 and distance([2, 0], [0, 5]) == 1
    assert in_use([{"mask_mixed": 1}]) == "mask_mixed" and in_use([{"mask_mixed": 1, "mask": 0}]) == "mask"
    assert in_use([{"loss": 1}]) is None


def test_axes() -> None:
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100] and ticks(0, 120) == [0, 50, 100, 150]
    assert (
        ticks(0, 0.7, 4) == [0, 0.2, 0.4, 0.6, 0.8] and ticks(0, 0) == [0] and ticks(-1, 1, 4) == [-1, -0.5, 0, 0.5, 1]
    )
    assert [plain(x) for x in (0, 0.25, 1500, 20_000, 1_048_576)] == ["0", "0.25", "1500", "20k", "1.049M"]
    many = thinned(Series("a", list(range(1, 10_001)), [1.0, 3.0] * 5000))
    assert len(many.x) <= 300 and many.x[-1] == 10_000 and set(many.y) == {2.0}
    assert "NaN" not in curves("one", [Series("a", [5], [0.0])]) and "<circle" in curves(
        "one", [Series("a", [5], [0.0])]
    )


def test_text_is_escaped_once() -> None:
    assert text("<a> & 'b' \"c\"") == "&lt;a&gt; &amp; &#x27;b&#x27; &quot;c&quot;"
    assert text(Markup("<b>")) == "<b>" and text("a\n\x1b\u202e\udcff") == "a\\n\\x1b\\u202e\\xff"
    assert tag("p", "<", title='"', class_="x", data_y=None) == '<p title="&quot;" class="x">&lt;</p>'
    assert name("x") == "<bdi>x</bdi>"


# ---- one run


def test_a_training_leaves_its_page(digits_run: Any, command: Callable[..., Any]) -> None:
    page, run = page_of(digits_run.path), Run(digits_run.path)
    told = json.loads(command("evaluate", digits_run.path, "--json").out)
    assert f"fixmatch is right on {told['accuracy']:.1f} % of 360 test pictures" in page.said.replace("\xa0", " ")
    assert f"The expected calibration error is {told['ece']:.1f} %" in page.said
    matrix = [[int(n or 0) for n in row[1:]] for row in page.table("class", "0", "1")]
    assert matrix == told["confusion"]
    rows = page.table("class", "labels", "pictures", "right %")
    assert [row[0] for row in rows] == [str(i) for i in range(10)] and {row[1] for row in rows} == {"4"}
    assert [row[3] for row in rows] == [f"{told['per_class'][row[0]]:.1f}" for row in rows]
    for word in (run.split.fingerprint, run.result["device"], "steps=120", "the recipe of fixmatch for digits"):
        assert word in page.said
    assert f"fewlabels train --config {digits_run.path / 'config.json'}" in page.said
    assert "It was not compared with the labels alone" in page.said
    images = [a for kind, a in page.elements if kind == "img"]
    assert len(images) == 2 * 18 + 1 and "contact sheet of views" in images[-1]["alt"]
    charts = [a["aria-label"] for kind, a in page.elements if kind == "svg"]
    words = ["Accuracy", "Loss", "Unlabeled pictures in use", "Pseudo-labels", "share of right answers"]
    assert [label[: len(word)] for label, word in zip(charts, words, strict=True)] == words


def test_the_pictures_shown_are_the_mistakes(digits_run: Any) -> None:
    told = evidence.read(digits_run.path)
    assert told is not None
    source = load_source(fl.Data("digits"))
    probs = fl.load(digits_run.path).predict_proba(source.test_images)
    called, sure = probs.argmax(1), probs.max(1)
    wrong = np.flatnonzero(called != source.test_labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:18]
    assert [p["name"] for p in told["mistakes"]] == [f"test image {row}" for row in worst]
    assert [p["called"] for p in told["mistakes"]] == called[worst].tolist()
    assert [p["truth"] for p in told["mistakes"]] == source.test_labels[worst].tolist()
    assert [p["confidence"] for p in told["mistakes"]] == pytest.approx(sure[worst], abs=2e-6)
    least = np.argsort(sure, kind="stable")[:18]
    assert [p["name"] for p in told["unsure"]] == [f"test image {row}" for row in least]
    second = np.sort(probs[least], 1)[:, -2]
    assert [p["second"][1] for p in told["unsure"]] == pytest.approx(second, abs=2e-6)
    pool = told["pool"]
    assert pool["n"] == sum(pool["called"]) == 360  # as many as are measured on, of 1,297


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    """From the folder, and from model and pictures where the training has left nothing."""
    first = (digits_run.path / PAGE).read_bytes()
    assert command("report", digits_run.path, "--html", tmp_path / "again.html").code == 0
    assert (tmp_path / "again.html").read_bytes() == first == rendered([tell(digits_run.path)])
    run = Run(digits_run.path)
    told = evidence.read(run.path)
    assert told is not None
    told = {k: v for k, v in told.items() if k not in ("run", "seal")}
    found = json.loads(json.dumps(evidence.gathered(run)))
    for each in (told, found):  # the same sums in batches of another size
        for bins in each["bins"]:
            bins[2] = round(bins[2], 3)
        for picture in (*each["mistakes"], *each["unsure"]):
            picture["confidence"], picture["second"][1] = round(picture["confidence"], 4), None
        each["ece"] = round(each["ece"], 4)
    assert found == told


def test_it_does_not_write_over_a_file(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "mine.html"
    target.write_text("mine")
    said = command("report", digits_run.path, "--html", target)
    assert said.code == 2 and str(target) in said.sentence and target.read_text() == "mine"
    assert command("report", digits_run.path, "--html", tmp_path / "a.txt").sentence == (
        "--html names a file that ends in .html, got a.txt"
    )
    assert command("report", digits_run.path, "--html", tmp_path / "b.html", "--csv").code == 2
    assert command("report", digits_run.path, "--html", tmp_path / "no" / "b.html").code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine.html"]


@pytest.mark.slow
def test_a_page_that_fails_costs_nothing(
    short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object, **more: object) -> None:
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr("fewlabels.report.evidence.evidence", fails)
    output = fl.training.loop.Output(False)
    run = fl.train(short(), out=tmp_path / "run", output=output)
    assert run.finished and not (run.path / PAGE).exists() and not (run.path / EVIDENCE).exists()
    assert "note: the report was not written (no such thing); `fewlabels report RUN --html FILE` makes one" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_fit_without_a_folder_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewlabels.report.evidence.evidence", lambda *args: pytest.fail("made for nothing"))
    source = load_source(fl.Data("digits"))
    fl.fit(source.images[:60], source.labels[:60], steps=4)


def test_evidence_that_was_changed_is_not_believed(digits_run: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run.path, run)
    told = json.loads((run / EVIDENCE).read_text())
    told["confusion"][0][2] += 1
    (run / EVIDENCE).write_text(json.dumps(told))
    story = tell(run)
    assert story.evidence is None and story.notes == [f"{run / EVIDENCE} has changed since it was written"]
    assert f"{EVIDENCE} has changed since it was written" in checked(rendered([story])).said


@pytest.mark.slow
def test_the_baseline_is_in_it(short: Callable[..., Any], command: Callable[..., Any], tmp_path: Path) -> None:
    small = ["--net", "small-4", "--batch", "4", "--steps", "6", "--eval-every", "3", "--no-progress"]
    said = command("train", "--data", "digits@40", *small, "--out", tmp_path / "run")
    assert said.code == 0 and f"what it has learnt: {tmp_path / 'run' / PAGE}" in said.out
    page, run = page_of(tmp_path / "run"), Run(tmp_path / "run")
    other = Run(tmp_path / "run" / "baseline").result["accuracy"]
    assert "the same training on the labels alone" in page.said and f"({other:.1f} %)" in page.said.replace("\xa0", " ")
    assert page_of(tmp_path / "run" / "baseline").said.startswith("supervised on digits@40")
    label = next(a["aria-label"] for kind, a in page.elements if kind == "svg")
    assert f"labels alone {other:.1f} %" in label
    assert f"fixmatch is right on {run.result['accuracy']:.1f} %" in page.said.replace("\xa0", " ")


# ---- what is not there


@pytest.mark.slow
def test_without_test_pictures(short: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    source = from_arrays(rng.integers(0, 256, (30, 12, 10, 1), np.uint8), np.array([0, 1, -1] * 10))
    data = fl.Data("arrays", valid=0)
    config = short(data=data, strong="none", weak="s", algorithm=fl.FixMatch(tau=0))
    page = page_of(fl.train(config, source=source, out=tmp_path / "run").path)
    assert "of 20 labeled pictures, which it was trained on: that says nothing about others" in page.said
    assert "there are no test or validation pictures" in page.said and "These pictures were trained on." in page.said
    assert "only the program that made them can repeat it" in page.said
    assert "the true classes of the unlabeled pictures are not known" in page.said


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels(short: Callable[..., Any], tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (40, 70, 66, channels), np.uint8)
    labels = np.arange(40) % 2
    source = from_arrays(images, labels, test_images=images[:8], test_labels=labels[:8])
    run = fl.train(short(data=fl.Data("arrays"), strong="none", weak="s"), source=source, out=tmp_path / "run")
    page = page_of(run.path)
    assert ("channels the first" in page.said) == (channels != 1)
    assert f"70 x 66 px, {channels} channel" in page.said


def test_a_thumbnail_shows_the_picture() -> None:
    def decoded(uri: str) -> Any:
        import base64

        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))

    small = np.random.default_rng(4).integers(0, 256, (9, 7, 3), np.uint8)
    uri, height, width = encoded(small)
    assert (height, width) == (9, 7) and (decoded(uri) == small).all()
    grey = small[..., :1]
    assert (decoded(encoded(grey)[0]) == np.repeat(grey, 3, 2)).all()
    four = np.concatenate([small, 255 - grey], 2)
    assert (decoded(encoded(four)[0]) == small).all()
    large = np.full((400, 200, 3), (200, 30, 60), np.uint8)
    uri, height, width = encoded(large)
    assert (height, width) == (SIDE, SIDE // 2) and abs(decoded(uri).astype(int) - (200, 30, 60)).max() < 8


@pytest.mark.slow
def test_a_run_that_was_stopped(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    """As it lies there after step 100 of 120: its pictures are read and its model is asked."""
    run = tmp_path / "run"
    shutil.copytree(digits_run.path, run)
    for part in ("result.json", EVIDENCE, PAGE):
        (run / part).unlink()
    last = run / "checkpoints" / "step-00000120"
    shutil.rmtree(last)
    before = sorted(p.name for p in run.rglob("*"))
    said = command("report", run, "--html", tmp_path / "page.html")
    assert said.code == 0 and "so they are read and asked about" in said.err
    page = checked((tmp_path / "page.html").read_bytes())
    assert "Stopped: after 120 of 120 steps" in page.said or "Stopped: after 90 of 120 steps" in page.said
    assert "As the model was after step 100." in page.said and "not finished" in page.said
    assert sorted(p.name for p in run.rglob("*")) == before, "a report only reads"
    doctor = json.loads(command("doctor", run, "--json").out)
    assert "few steps" not in [found["name"] for found in doctor["findings"]]


def test_a_run_whose_pictures_are_gone(photo_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(photo_run.path, run)
    for part in (EVIDENCE, PAGE):
        (run / part).unlink()
    config = json.loads((run / "config.json").read_text())
    config["train"]["data"]["name"] = f"{tmp_path / 'gone'}/"
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints")
    said = command("report", run, "--html", tmp_path / "page.html")
    assert said.code == 0
    page = checked((tmp_path / "page.html").read_bytes())
    assert "the pictures were not looked at: " in page.said and page.said.count("The pictures are not at hand") == 4
    assert page.table("class", "right %")


def test_a_run_that_was_never_evaluated(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run.path, run)
    for part in ("result.json", EVIDENCE, PAGE, "metrics.jsonl"):
        (run / part).unlink()
    shutil.rmtree(run / "checkpoints")
    assert command("report", run, "--html", tmp_path / "page.html").code == 0
    page = checked((tmp_path / "page.html").read_bytes())
    assert "fixmatch was stopped after 0 steps, before it was evaluated." in page.said
    assert "The run has no evaluation yet" in page.said


@pytest.mark.slow
def test_many_classes(short: Callable[..., Any], tmp_path: Path) -> None:
    """120 with names of 300 characters: the confusions are a list, the classes the worst first, the file is small."""
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (360, 33, 33, 3), np.uint8), np.arange(360) % 120
    names = [f"{i:03d} {'long name ' * 29}".ljust(300, "x") for i in range(120)]
    source = from_arrays(images, labels, classes=names, test_images=images, test_labels=labels)
    run = fl.train(short(data=fl.Data("arrays"), strong="none", steps=4), source=source, out=tmp_path / "run")
    page = page_of(run.path)
    frequent = page.table("class", "called", "pictures")
    assert len(frequent) == 30 and all(len(row[0]) == 300 for row in frequent)
    shown, rest = (t[1:] for t in page.tables if t[0][:2] == ["class", "labels"])
    right = [float(row[3]) for row in (*shown, *rest)]
    assert len(shown) == 30 and len(rest) == 90 and right == sorted(right)
    assert not [t for t in page.tables if t[0][:2] == ["class", "0"]]


def test_a_page_that_would_be_too_large_leaves_its_pictures_out(
    digits_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewlabels.report.write.LARGEST", 60_000)
    page = checked(rendered([tell(digits_run.path)]))
    assert not [kind for kind, _ in page.elements if kind == "img"]
    assert "Left out, as the file would be too large" in page.said
    assert page.table("picture", "class", "called")[0][0].startswith("test image ")


# ---- hostile names


@pytest.fixture(scope="module")
def hostile_run(short: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose files have such names, as their classes have on display, and a run folder with another."""
    root = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(6)
    for c, label in enumerate(HOSTILE):
        stem = label.replace("/", "")[:90]
        for i in range(4):
            folder = root / "photos" / ("test" if i > 1 else "labeled") / f"c{c}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / (f"{i}{stem}.png" if c % 2 else f"{stem}{i}.png")
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    (root / "names.json").write_text(json.dumps({f"c{c}": label for c, label in enumerate(HOSTILE)}))
    data = fl.Data(f"{root / 'photos'}/", classes=str(root / "names.json"))
    out = root / "=cmd('<b>')"
    fl.train(short(data=data, strong="none", steps=6, eval_every=3), out=out)
    return out


@pytest.mark.slow
def test_hostile_names_are_text(hostile_run: Path) -> None:
    page = page_of(hostile_run)
    rows = page.table("class", "labels", "pictures")
    assert sorted(row[0] for row in rows) == sorted(visible(label, lines=False) for label in HOSTILE)
    captions = page.said
    for label in HOSTILE[:4]:
        stem = visible(label.replace("/", "")[:90], lines=False)
        assert " ".join(stem.split()) in captions, "the names of files"
    assert "=cmd('<b>')" in captions and "\u202e" not in captions and "\n" not in "".join(row[0] for row in rows)
    told = json.loads((hostile_run / EVIDENCE).read_text())
    assert "test/c3/2two\nlines & a tab\t.png" in {p["name"] for p in told["unsure"]}


def test_hostile_names_are_no_formulas(hostile_run: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """In the CSV of `report`, and in that of `predict`."""
    said = command("report", hostile_run, "--csv").out
    rows = list(csv.reader(io.StringIO(said)))
    assert rows[1][rows[0].index("name")] == "'=cmd('<b>')"
    pictures = hostile_run.parent / "photos" / "test"
    assert command("predict", hostile_run, pictures, "-o", tmp_path / "out.csv").code == 0
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows += list(csv.reader(file))
    assert len(rows) == 2 + 1 + 12
    assert not [
        cell
        for row in rows
        for cell in row
        if cell[:1] in ("=", "@", "\t", "\r") or (cell[:1] in "+-" and cell[1:2].isalpha())
    ]


# ---- several runs


@pytest.fixture(scope="module")
def several_runs(short: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    for seed in (1, 2):
        fl.train(short(seed=seed), out=root / f"fix-{seed}")
    fl.train(short("mixmatch"), out=root / "mix")
    return root


@pytest.mark.slow
def test_several_runs(several_runs: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    said = command("report", several_runs, "--html", tmp_path / "page.html")
    assert said.code == 0 and said.out.startswith(f"wrote {tmp_path / 'page.html'} (")
    page = checked((tmp_path / "page.html").read_bytes())
    told = json.loads(command("report", several_runs, "--json").out)
    rows = page.table("name", "algorithm")
    assert [row[0] for row in rows] == ["fix-1", "fix-2", "mix"]
    heads = next(t[0] for t in page.tables if t[0][0] == "name")
    assert [row[heads.index("final")] for row in rows] == [f"{run['accuracy']:.2f}" for run in told["runs"]]
    (group,) = told["groups"]
    heads, cells = next(t for t in page.tables if "over" in t[0])
    wanted = f"{group['mean']['accuracy']:.2f} ± {group['std']['accuracy']:.2f}"
    assert cells[heads.index("final")] == wanted
    best = max(told["runs"], key=lambda run: run["accuracy"])
    assert f"3 runs; the best is {best['name']} with {best['accuracy']:.2f} %" in page.said
    assert page.said.count("Its own page is ") == 3 and not [k for k, _ in page.elements if k == "img"]


def test_a_run_that_cannot_be_read_is_named(several_runs: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copytree(several_runs, tmp_path / "runs")
    (tmp_path / "runs" / "mix" / "metrics.jsonl").write_text("no\n")
    said = command("report", tmp_path / "runs", "--html", tmp_path / "page.html")
    assert said.code == 1 and "mix" in said.err and "metrics.jsonl" in said.err
    assert [row[0] for row in checked((tmp_path / "page.html").read_bytes()).table("name")] == ["fix-1", "fix-2"]
    said = command("report", tmp_path / "runs" / "mix", "--html", tmp_path / "other.html")
    assert said.code == 2 and not (tmp_path / "other.html").exists()


# ---- in a browser


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=NONE)
def test_in_chromium(
    digits_run: Any, hostile_run: Path, several_runs: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    """At the width of a phone and of a desk, light and dark: nothing is asked for, nothing complains, nothing sticks
    out, every picture is there, and no name has done anything."""
    every = tmp_path / "several.html"
    assert command("report", several_runs, "--html", every).code == 0
    with Browser(tmp_path / "profile") as browser:
        for page in (digits_run.path / PAGE, hostile_run / PAGE, every):
            paper = set()
            for width in (390, 1280):
                for dark in (False, True):
                    browser.open(page, width=width, dark=dark)
                    assert browser.value("document.documentElement.scrollWidth") <= width
                    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)") is True
                    assert browser.value("window.hacked === undefined && document.scripts.length === 0") is True
                    paper.add(browser.value("getComputedStyle(document.body).backgroundColor"))
            assert len(paper) == 2, "light and dark"
            browser.pdf(tmp_path / "page.pdf")
            assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
            assert set(browser.asked) == {page.resolve().as_uri()} and browser.said == []
            browser.asked.clear()
