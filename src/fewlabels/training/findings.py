"""What an algorithm has found out about the unlabeled images, as a table and as a contact sheet."""

from __future__ import annotations

import io

import numpy as np

from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.data.tiles import grid
from fewlabels.runtime import files
from fewlabels.types import Findings


def table(found: Findings, source: Source, split: Split) -> bytes:
    """CSV with a line for each image, the most notable first: its row among the training images, its name where the
    images have names, and what was found. No cell is a formula for a spreadsheet (`files.cell`)."""
    rows = split.unlabeled[found.rows.cpu().numpy()].tolist()
    columns = {"row": rows, **({"name": [source.names[row] for row in rows]} if source.names else {}), **found.columns}
    text = files.csv_text([[*columns], *map(list, zip(*columns.values(), strict=True))])
    # a name that is not UTF-8 stays the bytes that it is on the disk
    return text.encode("utf-8", "surrogateescape")


def sheet(found: Findings, source: Source, split: Split) -> bytes:
    """PNG of the first images, as many as have captions."""
    rows = split.unlabeled[found.rows[: len(found.captions)].cpu().numpy()]
    page, buffer = grid(np.asarray(source.images[rows]), found.captions, found.title), io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
