"""What the file of a split holds, for readers of every kind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fewlabels.data.packed import pack
from fewlabels.data.source import Source
from fewlabels.data.split import Split


def as_json(split: Split, source: Source) -> dict[str, Any]:
    """The split for readers of every kind: index lists ascending, counts by class name, and all that
    `Split.from_json` needs to make the same split of it."""
    return {
        **json.loads(split.to_json()),
        "validation": np.sort(split.validation).tolist(),
        "validation_order": pack(split.validation),
        "unlabeled_count": len(split.unlabeled),
        "class_counts": dict(zip(source.classes, split.class_counts, strict=True)),
    }
