"""A folder of pictures as one source, which a training reads in two steps: what there is, and then the pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewlabels.data.folder import list_folder
from fewlabels.data.listing import Options
from fewlabels.data.pictures import Decoding, Fit
from fewlabels.data.source import Progress, Source


def read_folder(
    path: Path | str,
    *,
    image_size: int | None = None,
    fit: Fit = "crop",
    skip_corrupt: bool = False,
    progress: Progress | None = None,
    **parts: Any,
) -> Source:
    """parts: those of `list_folder`."""
    options = Options(image_size=image_size, how=Decoding(fit), skip_corrupt=skip_corrupt, progress=progress)
    return list_folder(path, **parts).read(options)
