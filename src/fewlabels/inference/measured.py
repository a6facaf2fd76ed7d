"""Which images the accuracy of a run is measured on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.source import Source
from fewlabels.data.split import Split


class Measured(NamedTuple):
    """What the reported accuracy of a training is measured on."""

    part: str
    """`test`, `valid` or `train`: the test images, else the validation images, else the labeled ones."""
    rows: NDArray[np.int64]
    """Of the test images, or else of the training images."""
    truth: NDArray[np.int64]

    @property
    def test(self) -> bool:
        """Whether the images are the test images; else they are among the training images."""
        return self.part == "test"


def measured(source: Source, split: Split) -> Measured:
    """The test images, else the validation images, else the labeled ones, as `curves.main_part` has it."""
    if len(source.test_labels):
        return Measured("test", np.arange(len(source.test_labels)), source.test_labels)
    if len(split.validation):
        return Measured("valid", split.validation, source.labels[split.validation])
    return Measured("train", split.labeled, split.targets)
