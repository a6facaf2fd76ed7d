"""Pictures that wait for a person's answer: a table, a contact sheet, and tasks for Label Studio; and the answers."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from fewlabels.data.answers import shown
from fewlabels.data.find import read_text
from fewlabels.data.source import Images
from fewlabels.data.tiles import grid
from fewlabels.report.pictures import encoded
from fewlabels.runtime import files
from fewlabels.runtime.cells import uncell

TABLE, SHEET, TASKS, INTERFACE = "label.csv", "sheet.png", "label-studio.json", "label-studio.xml"
"""The files of the folder."""

COLUMNS = 8


class Question(NamedTuple):
    """A picture to be labeled."""

    name: str
    """Its path, or what else it is called (`answers.called`)."""
    file: str = ""
    """Its path, if it is a file."""
    predicted: str = ""
    """The class that it is taken for."""
    confidence: float | None = None
    """The probability of that class."""
    given: str = ""
    """The label that it has."""


def write(folder: Path, questions: Sequence[Question], images: Images, classes: Sequence[str], title: str) -> None:
    """Write the folder, which must not exist: it is there as a whole or not at all.

    Names of files and classes are written as `answers.shown` has them, and `answers.read_answers` understands them.

    Args:
        images: the pictures, uint8 ``[n, H, W, C]``.
        classes: their names; none where nobody knows them yet, and then there is no interface for Label Studio.
    """
    captions = [_caption(question) for question in questions]
    sheet = io.BytesIO()
    grid(images, captions, title, COLUMNS).save(sheet, format="PNG", optimize=True)
    with files.new_folder(folder) as inside:
        files.write_bytes(inside / TABLE, table(questions).encode())
        files.write_bytes(inside / SHEET, sheet.getvalue())
        files.write_bytes(inside / TASKS, files.json_text(tasks(questions, images)))
        if classes:
            files.write_bytes(inside / INTERFACE, interface(classes).encode())


class Sheet:
    """The table of a folder of questions, in which answers are put down one after another."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder has no such table as `write` makes."""
        self.path = folder / TABLE
        try:
            text = read_text(self.path)
            head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
            if any(len(row) != len(head) for row in rows) or not {"path", "label"} <= set(head):
                raise ValueError("it has other columns")
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror}") from None
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{self.path} is no table of questions as fewlabels label writes it ({error})") from None
        self.head, self.rows = head, [[uncell(cell) for cell in row] for row in rows]
        self._known = text

    def column(self, name: str) -> list[str]:
        """The cells under a heading; empty ones where there is no such column."""
        return [row[self.head.index(name)] if name in self.head else "" for row in self.rows]

    def put(self, number: int, label: str) -> None:
        """Write the label of a row, or take it away with an empty one, at once; the rest of the table stays.

        Raises ValueError where another program has changed the file in between, or the disk does not take it: the
        label is then as it was.
        """
        row, place = self.rows[number], self.head.index("label")
        before, row[place] = row[place], label
        text = files.csv_text([self.head, *self.rows])
        try:
            if read_text(self.path) != self._known:
                raise ValueError(f"{self.path} was changed by another program: end this, and begin again")
            files.write_file(self.path, text.encode())
        except (OSError, ValueError) as error:
            row[place] = before
            if isinstance(error, OSError):
                raise ValueError(f"{self.path} could not be written: {error.strerror}") from None
            raise
        self._known = text


def _caption(question: Question) -> str:
    sure = "" if question.confidence is None else f" {question.confidence:.2f}"
    called = shown(question.predicted) or shown(os.path.basename(question.name))
    return f"{shown(question.given)}, {called}{sure}" if question.given else f"{called}{sure}"


def table(questions: Sequence[Question]) -> str:
    """CSV with the columns path, predicted, confidence and an empty label; `given` too, where there are labels. No
    cell is a formula for a spreadsheet (`cells.cell`)."""
    given = any(question.given for question in questions)
    rows = [
        [
            shown(one.name),
            *([shown(one.given)] if given else []),
            shown(one.predicted),
            "" if one.confidence is None else f"{one.confidence:.6f}",
            "",
        ]
        for one in questions
    ]
    return files.csv_text([["path", *(["given"] if given else []), "predicted", "confidence", "label"], *rows])


def tasks(questions: Sequence[Question], images: Images) -> list[dict[str, Any]]:
    """Tasks with predictions as https://labelstud.io/guide/predictions has them.

    `data.image` is a file that Label Studio serves itself (https://labelstud.io/guide/storage#Local-storage) with / as
    its document root, or the picture as a data URI where it is no file; `data.path` brings the answer back.
    """
    out = []
    for question, image in zip(questions, images, strict=True):
        place = quote(os.fsencode(os.path.abspath(question.file)).lstrip(b"/"))
        address = f"/data/local-files/?d={place}" if question.file else encoded(image)[0]
        data = {"image": address, "path": shown(question.name)}
        if question.given:
            data["given"] = shown(question.given)
        task: dict[str, Any] = {"data": data}
        if question.predicted:
            choice = {
                "from_name": "label",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": [shown(question.predicted)]},
            }
            score = {} if question.confidence is None else {"score": round(question.confidence, 6)}
            task["predictions"] = [{"model_version": "fewlabels", **score, "result": [choice]}]
        out.append(task)
    return out


def interface(classes: Sequence[str]) -> str:
    """The labeling interface that belongs to the tasks, https://labelstud.io/tags/choices."""
    choices = "".join(f"    <Choice value={quoteattr(shown(name))}/>\n" for name in classes)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="label" toName="image" choice="single">\n{choices}  </Choices>\n</View>\n'
    )
