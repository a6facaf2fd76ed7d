"""The model card of a run, Markdown as the Hugging Face hub shows it: numbers of the report, use, data, licence."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence

from fewlabels.report.numbers import margin
from fewlabels.report.story import PARTS, Story
from fewlabels.runtime.streams import visible

LICENCES = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")
"""Words of the hub for licences that are said alike; it calls any other one `other`, with a name."""

SHOWN = 100
"""Classes that are listed."""


def text(value: object) -> str:
    """Any text as Markdown that shows it, in one line: neither markup nor a table is made of it."""
    plain = html.escape(visible(str(value), lines=False), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", plain)


def card(story: Story, repository: str, licence: str = "", step: int | None = None) -> str:
    """The card.

    Args:
        repository: OWNER/NAME, for the command that uses the model.
        licence: of the weights; empty where none is known, which the card says.
        step: the weights are those after it; a run that was stopped may have been measured before or after, which the
            card says then. None: they are those that were measured.
    """
    shape, classes = story.data["shape"], story.classes
    parts = [
        _front(story, licence),
        f"# {text(repository.partition('/')[2])}",
        text(story.verdict()),
        "## Use",
        f"It tells {len(classes):,} classes of pictures apart: {_listed(classes)}.",
        f"```bash\npip install fewlabels\nfewlabels predict hf:{repository} photo.jpg\n```",
        f"Pictures are brought to {shape[1]} x {shape[2]} pixels with {shape[0]} channel{'s' * (shape[0] > 1)}.",
        "It is meant for pictures like those that it was measured on. Whatever a picture shows, it is called one of "
        "these classes, also where it is none of them. How good the model is on other pictures nobody has measured: "
        "try it on your own before you rely on it.",
        "## Numbers",
        *_numbers(story, step),
        "## Data",
        *_data(story),
        "## Licence",
        text(licence) + " for the weights." if licence else "No licence of the weights was named.",
        "The pictures that it was trained on are not here.",
    ]
    return "\n\n".join(parts) + "\n"


def _front(story: Story, licence: str) -> str:
    """What the hub reads, YAML; text stands there as in JSON, which is YAML too."""
    told = licence.lower()
    lines = ["library_name: fewlabels", "pipeline_tag: image-classification"]
    lines.append('tags: ["image-classification", "semi-supervised-learning", "fewlabels"]')
    if told in LICENCES:
        lines.append(f"license: {told}")
    elif told:
        lines += ["license: other", f"license_name: {json.dumps(licence)}"]
    return "\n".join(("---", *lines, "---"))


def _listed(classes: Sequence[str]) -> str:
    rest = f", and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    return ", ".join(text(c) for c in classes[:SHOWN]) + rest


def _numbers(story: Story, step: int | None) -> list[str]:
    """Accuracy, calibration, a table of classes."""
    scores, part, counts = story.scores, story.part, story.counts
    if scores is None or part is None:
        return ["It was not measured."]
    off = f" ± {margin(scores['accuracy'], scores['n']):.1f}" if part != "train" else ""
    rows: list[Sequence[object]] = [(f"right, of {scores['n']:,} {PARTS[part]}", f"{scores['accuracy']:.1f}{off} %")]
    for key, what in (
        ("supervised", "the same training on the labels alone"),
        ("labels_only", "a logistic regression of the labels on a learned net's features"),
    ):
        if key in story.compared:
            rows.append((what, f"{story.compared[key]:.1f} %"))
    rows.append(("mean F1 of the classes", f"{scores['macro_f1']:.1f} %"))
    if story.evidence is not None:
        rows.append(("expected calibration error", f"{story.evidence['ece']:.1f} %"))
    out, measured = [_table(("", ""), rows)], story.evaluations[-1]["step"]
    if step not in (None, measured):
        out.append(f"The model was measured after {measured:,} steps, and the weights here are those after {step:,}.")
    if counts is not None:
        labels = story.split["class_counts"]
        by_class = [
            (c, labels[i], counts.true[i], *map(_percent, (counts.recall(i), counts.precision(i), counts.f1(i))))
            for i, c in enumerate(story.classes[:SHOWN])
        ]
        out.append(_table(("class", "labels", "pictures", "right %", "precision %", "F1 %"), by_class))
    return out


def _data(story: Story) -> list[str]:
    settings, split = story.settings, story.split
    learned = "that was learned before" if settings["net.pretrained"] else "that began anew"
    return [
        f"{text(split['source'])}: {sum(split['class_counts']):,} labels, {split['unlabeled']:,} unlabeled, "
        f"{split['validation']:,} validation and {story.data.get('test', 0):,} test pictures; split by the rule "
        f"{text(split['rule'])}, seed {split['seed']}.",
        f"Trained by {text(settings['algorithm.name'])}, {_steps(story)}, net {text(settings['net.name'])} "
        f"{learned}, fewlabels {text(story.version)}.",
    ]


def _steps(story: Story) -> str:
    done = story.entry.row["steps_done"]
    return f"{done:,} steps" if done else "fitted without steps"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *([text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
