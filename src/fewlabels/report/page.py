"""The page about one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewlabels.data.split import COUNTS
from fewlabels.report.charts import Series, calibration, curves
from fewlabels.report.doctor import unseen
from fewlabels.report.markup import Markup, joined, more, name, section, table, tag, typed
from fewlabels.report.numbers import MATRIX, Counts, in_use, margin, unjudged
from fewlabels.report.story import PARTS, Story
from fewlabels.report.style import STYLE
from fewlabels.runtime.words import amount, duration

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets the page do: show its own pictures and its own style, and nothing from elsewhere."""

ROWS = 30
"""Classes and confusions that are shown at once."""


def document(title: str, *body: object) -> str:
    """A whole HTML file."""
    head = joined(
        (
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("style", Markup(STYLE)),
        )
    )
    foot = tag("footer", "Made by fewlabels report. The file holds all that it shows and fetches nothing.")
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', tag('main', *body, foot)), lang='en')}\n"


def page(story: Story, *, pictures: bool = True) -> str:
    """The page about a run. pictures: with thumbnails and the sheet of views."""
    title = f"{story.settings['algorithm.name']} on {story.settings['data.name']}"
    return document(
        title,
        tag("h1", name(title), " · ", name(story.path)),
        tag("p", story.verdict().replace(" %", "\u00a0%"), class_="verdict"),
        tiles(story),
        section("What may be wrong", doctor(story)),
        course(story),
        _classes(story),
        _confidence(story),
        _pictures(story, pictures),
        _views(story, pictures),
        about(story),
    )


def tiles(story: Story) -> Markup:
    """The numbers that matter."""
    row, scores, part = story.entry.row, story.scores, story.part
    shown: list[tuple[str, str]] = []
    if scores is not None and part is not None:
        off = f" ± {margin(scores['accuracy'], scores['n']):.1f}" if part != "train" else ""
        shown.append((f"{scores['accuracy']:.1f}{off} %", f"right, of {scores['n']:,} {PARTS[part]}"))
    for key, what in (
        ("supervised", "the labels alone, trained alike"),
        ("labels_only", "the labels on a learned net"),
    ):
        if key in story.compared:
            shown.append((f"{story.compared[key]:.1f} %", what))
    shown.append((f"{sum(story.split['class_counts']):,}", f"labels for {len(story.classes):,} classes"))
    shown.append((f"{story.split['unlabeled']:,}", "unlabeled pictures"))
    if row["seconds"] is not None:
        steps = f"{row['steps']:,} steps" if row["steps"] else "fitted without steps"
        shown.append((duration(row["seconds"]), steps))
    made = (tag("div", tag("b", value.replace(" ", "\u00a0")), tag("span", what)) for value, what in shown)
    return tag("div", *made, class_="tiles")


def doctor(story: Story) -> Markup:
    """What may be wrong."""
    found = [
        tag("div", tag("p", tag("b", f.text)), tag("p", "May help: ", typed(f.option), "."), class_="finding")
        for f in story.findings
    ]
    if not found:
        found = [tag("p", "Nothing that the records show looks wrong.")]
    blind = unseen(story.case)
    skipped = [tag("p", "Not looked at: ", "; ".join(blind), ".", class_="faint")] if blind else []
    return joined((*found, *skipped, *(tag("p", note, class_="faint") for note in story.notes)))


def accuracy_series(evaluations: Sequence[Mapping[str, Any]], part: str, label: str, weights: str = "ema") -> Series:
    points = [(r["step"], r[part][weights]["accuracy"]) for r in evaluations if part in r]
    return Series(label, [x for x, _ in points], [y for _, y in points])


def _logged(story: Story, key: str, label: str, factor: float = 1.0) -> list[Series]:
    points = [(r["step"], factor * r[key]) for r in story.logs if isinstance(r.get(key), int | float)]
    return [Series(label, [x for x, _ in points], [y for _, y in points])] if points else []


def course(story: Story) -> Markup:
    """Curves over the steps."""
    title = "How the training went"
    if not story.settings["steps"]:
        return section(title, tag("p", "There are no curves: the last layer was fitted without steps."))
    charts = []
    parts = [p for p in ("test", "valid", "train") if story.evaluations and p in story.evaluations[-1]]
    if parts:
        words = {"test": "test", "valid": "validation", "train": "labeled"}
        every = [accuracy_series(story.evaluations, p, words[p]) for p in parts]
        if story.baseline and all(parts[0] in r for r in story.baseline):
            every.append(accuracy_series(story.baseline, parts[0], "labels alone")._replace(faint=True))
        charts.append(curves("Accuracy", every, unit="%", whole=True))
    losses = {"loss": "all", "loss_x": "labels", "loss_u": "unlabeled"}
    if every := [s for key, word in losses.items() for s in _logged(story, key, word)]:
        charts.append(curves("Loss", every))
    share = in_use(story.logs)
    if share and (every := _logged(story, share, "in use", 100)):
        charts.append(curves("Unlabeled pictures in use", every, unit="%", whole=True))
    every = [*_logged(story, "pseudo_accuracy", "right"), *_logged(story, "confidence", "confidence", 100)]
    if every:
        only = "Pseudo-labels" if len(every) == 2 else f"Pseudo-labels: {every[0].name}"
        charts.append(curves(only, every, unit="%", whole=True))
    missing = []
    if not story.evaluations:
        missing.append("the run has no evaluation yet")
    if not any("loss" in r for r in story.logs):
        missing.append("it has no log point yet")
    if why := unjudged(story.logs):
        missing.append(f"how many pseudo-labels are right is not known: {why}")
    notes = [tag("p", "; ".join(missing).capitalize(), ".", class_="faint")] if missing else []
    return section(title, tag("div", *charts, class_="charts"), *notes)


def _classes(story: Story) -> Markup:
    """Confusion matrix and the table of classes."""
    title, counts = "Where it is right and wrong", story.counts
    if counts is None:
        return section(
            title, tag("p", "The pictures are not at hand, so there is no confusion matrix."), _recalls(story)
        )
    out = []
    if story.evidence is not None and story.part and story.evidence["step"] != story.evaluations[-1]["step"]:
        out.append(tag("p", f"As the model was after step {story.evidence['step']:,}.", class_="faint"))
    if counts.classes <= MATRIX:
        out += [tag("h3", "Confusion matrix"), _matrix(counts, story.classes)]
    frequent = counts.mistakes()
    if frequent and (counts.classes > MATRIX or counts.classes > 5):
        rows = [
            (name(story.classes[i]), name(story.classes[j]), n, f"{100 * n / counts.true[i]:.0f} %")
            for i, j, n in frequent
        ]
        shown = rows if counts.classes > MATRIX else rows[:5]
        heads = ("class", "called", "pictures", "of the class")
        out.append(tag("h3", "Most frequent confusions"))
        out.append(table(heads, shown[:ROWS], left=(0, 1)))
        if len(shown) > ROWS:
            out.append(
                tag("p", f"And {len(shown) - ROWS:,} more, each of at most {shown[ROWS][2]} pictures.", class_="faint")
            )
    if not frequent:
        out.append(tag("p", "No picture is called a class that it is not."))
    out += [tag("h3", "Classes"), _table_of_classes(story, counts)]
    return section(title, *out)


def _matrix(counts: Counts, classes: Sequence[str]) -> Markup:
    digits = list(classes) == [str(i) for i in range(len(classes))]
    heads = [tag("th", "class", class_="l"), *(tag("th", i, title=c) for i, c in enumerate(classes))]
    rows = []
    for i, c in enumerate(classes):
        cells = []
        for j in range(counts.classes):
            n = counts.cells.get((i, j), 0)
            share = n / max(1, counts.true[i])
            colour = "26,138,95" if i == j else "214,90,40"
            strength = 0.12 + 0.5 * share if i == j else 0.15 + 0.6 * min(1.0, 3 * share)
            style = f"background:rgba({colour},{strength:.2f})" if n else None
            cells.append(tag("td", n or "", style=style, title=f"{c} called {classes[j]}: {n}" if n else None))
        rows.append(tag("tr", tag("td", name(c), "" if digits else f" ({i})", class_="l"), *cells))
    body = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    said = "Rows are the true class, columns what the pictures are called."
    return joined((tag("p", said, class_="faint"), tag("div", body, class_="wide matrix")))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _table_of_classes(story: Story, counts: Counts) -> Markup:
    labels, order = story.split["class_counts"], list(range(counts.classes))
    long = counts.classes > ROWS
    if long:
        order.sort(key=lambda c: (101.0 if counts.recall(c) is None else counts.recall(c), c))
    rows = []
    for c in order:
        taken = counts.most_taken_for(c)
        rows.append(
            (
                name(story.classes[c]),
                f"{labels[c]:,}",
                f"{counts.true[c]:,}",
                _percent(counts.recall(c)),
                _percent(counts.precision(c)),
                _percent(counts.f1(c)),
                "" if taken is None else joined((name(story.classes[taken[0]]), f" ({taken[1]:,})")),
            )
        )
    heads = ("class", "labels", "pictures", "right %", "precision %", "F1 %", "taken for")
    made = table(heads, rows[:ROWS] if long else rows, left=(0, 6))
    if not long:
        return made
    said = f"The {ROWS} classes with the fewest right answers."
    rest = more(f"the other {len(rows) - ROWS:,} classes", table(heads, rows[ROWS:], left=(0, 6)))
    return joined((tag("p", said, class_="faint"), made, rest))


def _recalls(story: Story) -> Markup:
    """What the last evaluation says of the classes, where there is no confusion matrix."""
    if story.scores is None:
        return Markup("")
    known = sorted(story.scores["per_class"].items(), key=lambda each: each[1])
    rows = [(name(c), f"{recall:.1f}") for c, recall in known]
    rest = [more(f"{len(rows) - ROWS:,} more classes", table(("class", "right %"), rows[ROWS:]))] if rows[ROWS:] else []
    return joined((table(("class", "right %"), rows[:ROWS]), *rest))


def _confidence(story: Story) -> Markup:
    title, known = "How far its confidence can be believed", story.evidence
    if known is None:
        return section(title, tag("p", "The pictures are not at hand, so the confidences were not measured."))
    n, bins = known["n"], known["bins"]
    sure, right = (sum(each[i] for each in bins) / n for i in (2, 1))
    said = (
        f"The expected calibration error is {known['ece']:.1f} %: the mean distance of confidence and accuracy, in "
        f"{len(bins)} bins of confidence. The mean confidence is {100 * sure:.1f} %, and {100 * right:.1f} % are right."
    )
    hint = [] if known["part"] != "train" else [tag("p", "These pictures were trained on.", class_="faint")]
    return section(title, tag("p", said), *hint, tag("div", calibration(bins), class_="charts"))


def _pictures(story: Story, shown: bool) -> Markup:
    known = story.evidence
    if known is None:
        return section("Mistakes", tag("p", "The pictures are not at hand."))
    what = PARTS[known["part"]]
    remark = ""
    if known["channels"] not in (1, 3):
        remark = f" Of the {known['channels']} channels the first {min(3, known['channels'])} are shown."
    wrong = sum(n for _, _, n in Counts.of(len(story.classes), known["confusion"]).mistakes())
    some = known["mistakes"]
    first = [tag("p", f"No mistake on {known['n']:,} {what}.")]
    if some:
        said = f"{len(some)} of {wrong:,} mistakes on {what}, the most confident first: wrong, or wrongly labeled?"
        first = [tag("p", said + remark, class_="faint"), _gallery(some, story.classes, shown)]
    said = f"{len(known['unsure'])} of {known['n']:,} {what}, the least certain first."
    second = [tag("p", said + remark, class_="faint"), _gallery(known["unsure"], story.classes, shown)]
    return joined((section("The most confident mistakes", *first), section("The least certain answers", *second)))


def _gallery(pictures: Sequence[Mapping[str, Any]], classes: Sequence[str], shown: bool) -> Markup:
    if not shown:
        rows = [
            (name(p["name"]), name(classes[p["truth"]]), name(classes[p["called"]]), f"{100 * p['confidence']:.1f}")
            for p in pictures
        ]
        return table(("picture", "class", "called", "confidence %"), rows, left=(0, 1, 2))
    made = []
    for p in pictures:
        small = max(p["height"], p["width"]) <= 64
        alt = f"picture of class {classes[p['truth']]}"
        image = tag("img", src=p["image"], alt=alt, class_="pixels" if small else None)
        called = tag("b", name(classes[p["called"]]))
        sure = f" {100 * p['confidence']:.1f} %"
        second = joined((name(classes[p["second"][0]]), f" {100 * p['second'][1]:.1f} %"))
        right = p["truth"] == p["called"]
        truth = "right" if right else joined(("is ", name(classes[p["truth"]])))
        lines = (called, sure, tag("br"), truth, tag("br"), tag("small", "then ", second))
        where = tag("small", name(p["name"]), title=p["name"])
        made.append(tag("figure", image, tag("figcaption", *lines, where)))
    return tag("div", *made, class_="pictures")


def _views(story: Story, shown: bool) -> Markup:
    title, known = "What the net was shown", story.evidence
    if known is None:
        return section(title, tag("p", "The pictures are not at hand."))
    if known["sheet"] is None:
        return section(title, tag("p", "No sheet of views: ", known["absent"].get("sheet", ""), "."))
    if not shown:
        return section(
            title, tag("p", typed("Left out, as the file would be too large: `fewlabels data show` draws it."))
        )
    said = "Labeled pictures of each class, and weak and strong views of the first of them; below, unlabeled ones."
    image = tag("img", src=known["sheet"], alt="contact sheet of views", class_="sheet")
    return section(title, tag("p", said, class_="faint"), tag("div", image, class_="wide"))


def about(story: Story) -> Markup:
    """Data, settings, machine, and how to repeat it."""
    s, result, row = story.settings, story.result, story.entry.row
    c, h, w = story.data["shape"]
    counts, split = story.split["class_counts"], story.split
    some = [n for n in counts if n] or [0]
    each = f"{min(some):,}" if min(some) == max(some) else f"{min(some):,} to {max(some):,}"
    facts: list[tuple[str, object]] = [
        ("data", name(s["data.name"])),
        ("pictures", f"{h} x {w} px, {c} channel{'s' if c > 1 else ''}; {len(story.classes):,} classes"),
        ("split", f"rule {split['rule']}, seed {split['seed']}; {sum(counts):,} labels, {each} a class; "
         f"{split['unlabeled']:,} unlabeled, {split['validation']:,} validation, {story.data.get('test', 0):,} test"),
        ("fingerprint", tag("code", split["fingerprint"])),
    ]  # fmt: skip
    for origin in split["lineage"]:
        facts.append(("labels given", ", ".join(f"{k} {v}" for k, v in origin.items() if k != COUNTS)))
    known = story.evidence or {}
    if "settings" in known:
        told = known["settings"]
        other = ", ".join(f"{k}={v}" for k, v in told["changed"].items()) or "nothing else"
        facts.append(
            ("settings", f"{told['compared_with']}; but {other}" if told["changed"] else told["compared_with"])
        )
    else:
        facts.append(("settings", "which of them differ from the recipe is not known without the pictures: all below"))
    facts.append(("seeds", f"training {s['seed']}, split {s['data.seed']}"))
    facts.append(
        (
            "net",
            name(s["net.name"])
            if not result
            else joined((name(s["net.name"]), f", {result['parameters']:,} parameters")),
        )
    )
    if result:
        versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
        where = "GPU memory" if "CPU" not in result["device"] else "memory"
        facts.append(
            ("machine", f"{result['device']}; {versions}; {where} up to {amount(result['peak_memory_bytes'])}")
        )
        spent = duration(result["seconds"])
        if result["seconds_from_step"]:
            spent += f" since step {result['seconds_from_step']:,}, where it was resumed"
        facts.append(("time", spent))
    else:
        facts.append(("state", f"not finished: {row['steps_done']:,} of {s['steps']:,} steps"))
    again = [tag("p", "The run was made from arrays in memory: only the program that made them can repeat it.")]
    if (command := story.repeat()) is not None:
        said = f"With fewlabels {story.version} and the same pictures; other threads or machines round otherwise."
        again = [tag("pre", command), tag("p", said, class_="faint")]
    every = table(("setting", "value"), [(k, name(v)) for k, v in s.items()], left=(0, 1))
    listed = tag("dl", *(part for key, value in facts for part in (tag("dt", key), tag("dd", value))))
    return joined(
        (
            section("What it was made of", listed, more(f"all {len(s)} settings", every)),
            section("To repeat it", *again),
        )
    )
