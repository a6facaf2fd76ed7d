"""What the labels alone make of the features of a learned net, on the images that a training is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from fewlabels.algorithms.frozen import on_labels
from fewlabels.algorithms.linear import unit
from fewlabels.config.choice import TINY
from fewlabels.config.resolve import load_source, pixel_statistics
from fewlabels.config.settings import Net, Train
from fewlabels.data.names import is_pictures
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.features import SIDE, features_of, learned_body
from fewlabels.inference.measured import measured
from fewlabels.nets import learned
from fewlabels.runtime import parallel
from fewlabels.training.log import Progressing, reading


def compared(
    config: Train, source: Source, split: Split, device: torch.device, progress: Progressing = None
) -> Mapping[str, float]:
    """``{"labels_only": accuracy}`` in percent of a logistic regression on features of the smallest learned net, for a
    folder of own pictures that are not tiny; nothing where its weights are not at hand, or for other data.

    On labeled pictures and those that are measured on only, which takes seconds.
    """
    net = learned.NETS[0]
    small = min(source.shape[1:]) < TINY
    if small or not is_pictures(config.data.name) or config.net.train != "all" or learned.at_hand(net) is None:
        return {}
    frozen = Net(net.net, pretrained=learned.pretrained(net.net), train="head")
    data = replace(config.data, image_size=SIDE, residency="stream")
    pictures = load_source(data)
    if pictures.name != source.name or len(pictures.images) != len(source.images):
        return {}  # the folder has just changed
    shape = pictures.shape
    body = learned_body(net, shape, device, pixel_statistics(Train(data=config.data, net=frozen), pictures))
    part = measured(source, split)
    images = pictures.test_images if part.test else pictures.images
    with (
        parallel.first(),
        reading(progress if parallel.rank() == 0 else None, "features to compare with", "done") as show,
    ):
        table, whole = body.table(source.name), len(split.labeled) + len(part.rows)
        known = features_of(body, pictures.images, split.labeled, table, lambda done, _: show(done, whole))
        asked = features_of(body, images, part.rows, table, lambda done, _: show(len(split.labeled) + done, whole))
    layer = on_labels(unit(known.float()), torch.from_numpy(split.targets).to(device), len(source.classes))
    answers = layer(unit(asked.float())).argmax(1).cpu().numpy()
    return {"labels_only": 100 * float((answers == part.truth).mean())}
