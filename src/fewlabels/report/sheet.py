"""A contact sheet: what the labeled images are, and what the views make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from fewlabels.augment import View, moves_of, pack, strong_view, unpack, weak_view
from fewlabels.config.settings import Train
from fewlabels.data.source import Images, Source
from fewlabels.data.split import Split
from fewlabels.data.tiles import BLOCK, FAINT, GAP, HEAD, INK, MARGIN, PAPER, clipped, font, paste, tile_shape
from fewlabels.runtime.rng import Rng, philox
from fewlabels.runtime.streams import visible


class Columns(NamedTuple):
    """How many pictures a row of the sheet shows."""

    labeled: int = 8
    weak: int = 3
    strong: int = 5


def views_of(config: Train, source: Source) -> tuple[View, View]:
    """The weak and the strong view of resolved settings without `augment`, for the images of the source."""
    shift = config.shift or 0
    moves = moves_of(config.weak, shift)._asdict()
    policy = "svhn" if source.name.startswith("svhn") else "cifar"
    strong = strong_view(config.strong, source.shape, **moves, cutout=config.cutout, policy=policy)
    return weak_view(config.weak, source.shape, shift=shift), strong


def sheet(
    source: Source,
    split: Split,
    weak: View,
    strong: View,
    *,
    lines: Sequence[str] = (),
    rows: int = 20,
    columns: Columns | None = None,
    seed: int = 1,
) -> Image.Image:
    """Draw the sheet: one row per class, at its left end labeled images, at its right views of the first of them.

    Below come some unlabeled images.

    Args:
        weak, strong: views for images of the source's shape.
        lines: the headline and what stands under it.
        rows: classes to show at most; the sheet says how many are left out.
        seed: of the views and of the choice of unlabeled images.
    """
    columns = columns or Columns()
    columns = columns._replace(labeled=min(columns.labeled, int(np.bincount(split.targets).max())))
    shown = range(min(len(source.classes), rows))
    members = [split.labeled[split.targets == c] for c in shown]
    height, width = tile_shape(source.shape[1:])
    small, large = font(14), font(24)

    names = [clipped(visible(source.classes[c], lines=False), small, 180) for c in shown]
    counts = [f"{split.class_counts[c]} labeled" for c in shown]
    left = MARGIN + int(max(small.getlength(text) for text in (*names, *counts))) + 16
    heads = ("labeled", "weak views of the first", "strong views of the first")
    blocks: list[list[int]] = []  # where the pictures of each block begin
    x = left
    for count, head in zip(columns, heads, strict=True):
        blocks.append([x + i * (width + GAP) for i in range(count)])
        x += max(count * (width + GAP), int(small.getlength(head))) + BLOCK
    places = [place for block in blocks for place in block]
    total = max(x - BLOCK, *(MARGIN + int(small.getlength(line)) for line in lines[1:]), left) + MARGIN
    top = MARGIN + (36 if lines else 0) + 20 * max(0, len(lines) - 1) + 16
    bottom = top + HEAD + len(shown) * (height + GAP) + HEAD * (len(shown) < len(source.classes))
    some = philox(seed, "sheet/unlabeled").permutation(split.unlabeled)[: 2 * len(places)]
    below = bottom + 18 + HEAD + -(-len(some) // len(places)) * (height + GAP)

    page = Image.new("RGB", (total, below + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    for i, line in enumerate(lines):
        at = (MARGIN, MARGIN + (36 + 20 * (i - 1) if i else 0))
        pen.text(at, line, font=small if i else large, fill=FAINT if i else INK)
    for block, head in zip(blocks, heads, strict=True):
        pen.text((block[0], top), head, font=small, fill=FAINT)
    firsts = [int(picked[0]) for picked in members if len(picked)]
    views = zip(
        _looks(source.images[firsts], weak, "sheet/weak", columns.weak, seed),
        _looks(source.images[firsts], strong, "sheet/strong", columns.strong, seed),
        strict=True,
    )
    for row, (name, amount, picked) in enumerate(zip(names, counts, members, strict=True)):
        y = top + HEAD + row * (height + GAP)
        pen.text((MARGIN, y + height / 2 - 2), name, font=small, fill=INK, anchor="ls")
        pen.text((MARGIN, y + height / 2 + 2), amount, font=font(12), fill=FAINT, anchor="la")
        parts = (source.images[picked[: columns.labeled]], *(next(views) if len(picked) else ()))
        for block, part in zip(blocks, parts, strict=False):
            paste(page, part, block, y)
    if len(shown) < len(source.classes):
        text = f"and {len(source.classes) - len(shown)} more classes"
        pen.text((MARGIN, bottom - 20), text, font=small, fill=FAINT)
    text = f"{len(some)} of the {len(split.unlabeled):,} unlabeled images"
    pen.text((left, bottom + 18), text, font=small, fill=FAINT)
    for start in range(0, len(some), len(places)):
        y = bottom + 18 + HEAD + start // len(places) * (height + GAP)
        paste(page, source.images[some[start : start + len(places)]], places, y)
    return page


def _looks(images: Images, view: View, purpose: str, times: int, seed: int) -> Images:
    """Each image through the view some times, uint8 ``[N, times, H, W, C]``."""
    pixels = pack(torch.from_numpy(images))
    looks = [view(pixels, view.draw(Rng(seed, step), len(pixels), purpose)) for step in range(times)]
    return torch.stack([unpack(look, view.shape) for look in looks], 1).numpy()
