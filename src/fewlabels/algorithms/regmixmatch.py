"""RegMixMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.freematch import FreeMatch, SelfAdaptive
from fewlabels.algorithms.functional import cross_entropy, one_hot, over, squared_error
from fewlabels.algorithms.slots import Seen, Term
from fewlabels.nets import frozen_statistics
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.runtime.rng import Rng
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class RegMixMatch(FreeMatch):
    """RegMixMatch (Han et al. 2025), https://arxiv.org/abs/2412.10741.

    FreeMatch that learns from mixed strong views, too: into each one another image is pasted, small. Images that the
    net is certain of are mixed with each other; one of these, or a labeled one, is pasted into each of the others.
    """

    name: ClassVar[str] = "regmixmatch"

    tau_m: Annotated[float, Range(0, 1)] = 0.999
    """Confidence from which the net is certain of an image."""
    w_srm: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on images that the net is certain of, mixed with each other (semi-supervised RegMixup)."""
    w_cam: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on the other mixed images (class-aware MixUp)."""
    many_labels: Annotated[int, Range(0)] = 100
    """Labels of a class, on average, from which labeled images are mixed with those that the net is certain of."""

    def compose(self, info: Info) -> Consistency:
        adaptive = SelfAdaptive(self, info.classes)
        terms: dict[str, tuple[float, Term]] = {"loss_fair": (self.w_fairness, adaptive.fairness)}
        if not self.w_srm and not self.w_cam:
            return self.guided(select=adaptive, terms=terms)
        return self.guided(Mixed, select=adaptive, terms={**terms, "loss_mix": (1.0, Mixes(self, info))})


class Mixed(Consistency):
    """The step with mixed images in a second forward pass."""

    draws = True
    on_features = False


class Box(NamedTuple):
    """Where an image is pasted: rows and columns, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int

    def share(self, size: tuple[int, int]) -> float:
        """What is left of an image of that height and width."""
        return 1 - (self.bottom - self.top) * (self.right - self.left) / (size[0] * size[1])


def box(height: int, width: int, share: float, row: int, column: int) -> Box:
    """The box of ResizeMix around (row, column), a pixel: 0.1 to 0.8 of the image's height and width, for `share` from
    0 to 1 of an area, cut off at the borders; it may be empty where an image is tiny."""
    scale = 0.1 + 0.7 * share**0.5
    rows, columns = int(height * scale) // 2, int(width * scale) // 2
    top, left = max(row - rows, 0), max(column - columns, 0)
    return Box(top, min(row + rows, height), left, min(column + columns, width))


def pasted(images: Tensor, others: Tensor, box: Box) -> Tensor:
    """`images` ``[N, C, H, W]`` with the middle nine tenths of `others` pasted into the box, resized by nearest
    neighbour (ResizeMix, Qin et al. 2020, https://arxiv.org/abs/2012.11101, with the middle in place of the whole)."""

    def sources(size: int, length: int) -> Tensor:
        kept = int(0.9 * size)
        return (size - kept) // 2 + torch.arange(length, device=images.device) * kept // max(length, 1)

    mixed, (height, width) = images.clone(), images.shape[2:]
    rows, columns = sources(height, box.bottom - box.top), sources(width, box.right - box.left)
    mixed[:, :, box.top : box.bottom, box.left : box.right] = others[:, :, rows][:, :, :, columns]
    return mixed


def shuffled(members: Tensor, order: Tensor) -> Tensor:
    """For each of the `members` ``[P]`` bool its partner among them, a place ``[P]`` int64; for others any place.

    order: a permutation of all P places; that of the members in it is the order of their partners.
    """
    drawn = order[(~members[order]).int().argsort(stable=True)]
    return drawn[members.cumsum(0) - 1]


def picked(allowed: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
    """For each of M images one of the P that are `allowed` ``[M, P]`` bool, by a `draw` ``[M]`` in [0, 1).

    Whether there is any, ``[M]`` bool, and its place, ``[M]`` int64.
    """
    counted = allowed.cumsum(1)
    count = counted[:, -1]
    number = torch.minimum((draw * count).long(), count - 1) + 1
    return count > 0, torch.searchsorted(counted, number[:, None])[:, 0]


class Mixes:
    """Term: the losses of the mixed images, with their weights, 0-d."""

    def __init__(self, config: RegMixMatch, info: Info) -> None:
        self.config = config
        self.labeled = int(info.labeled_counts.sum()) >= config.many_labels * info.classes
        """Whether labeled images are mixed with those that the net is certain of."""

    def __call__(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        config, confidence = self.config, seen.probs.amax(1)
        certain = (confidence >= config.tau_m) & (seen.counts > 0)
        images, labels = self.mixed(seen, certain)
        with frozen_statistics(seen.net):  # the first pass alone moves them
            logits = seen.net(images).float()
        rows = len(certain)
        weights = torch.cat((seen.counts.new_ones(len(images) - rows), seen.counts * certain))
        srm = (weights * cross_entropy(logits, labels)).sum() / rows

        others = seen.counts * ~certain
        error = (others * squared_error(logits[-rows:], labels[-rows:])).sum()
        count = parallel.mean(others.sum())
        cam = over(parallel.mean((others * confidence**3).sum()), count) * over(error, count)
        seen.log.update(loss_srm=srm.detach(), loss_cam=cam.detach(), certain=certain.float().mean())
        return config.w_srm * srm + config.w_cam * cam

    @torch.no_grad()
    def mixed(self, seen: Seen, certain: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed strong views and their labels as distributions, in the order of the batch; before them the labeled
        images, if those are mixed. Partners are of any rank.

        certain: ``[M]`` bool.
        """
        batch, rng, guess = seen.batch, seen.batch.rng, seen.probs.argmax(1)
        x, strong = batch.x[0], batch.u[-1]
        size, places = (
            (strong.shape[2], strong.shape[3]),
            torch.arange(rng.world * (len(x) + len(strong)), device=x.device),
        )
        of_labeled, of_strong = places[: rng.world * len(x)], places[rng.world * len(x) :]
        pool = torch.cat((parallel.gather(x), parallel.gather(strong)))
        classes = torch.cat((parallel.gather(batch.y), parallel.gather(guess)))
        trusted = torch.cat((of_labeled >= 0, parallel.gather(certain.int()) > 0))
        targets = one_hot(classes, seen.probs.shape[1])

        mine, members = rng.shard(of_strong), trusted & (places >= len(of_labeled))
        if self.labeled:
            mine, members = torch.cat((rng.shard(of_labeled), mine)), trusted
        partner = shuffled(members, rng.permutation("resizemix-partners", len(pool)))[mine]
        where = drawn_box(rng, "resizemix-certain", 1.0, strong)
        images = pasted(pool[mine], pool[partner], where)
        labels = targets[partner].lerp(targets[mine], where.share(size))

        own_class = rng.generator("resizemix-class").random() < 0.5
        allowed = trusted & (classes == guess[:, None]) if own_class else trusted.expand(len(strong), -1)
        found, donor = picked(allowed, rng.uniform("resizemix-donors", len(strong)))
        where = drawn_box(rng, "resizemix-others", 16.0, strong)
        other = pasted(strong, pool[donor], where).where(found[:, None, None, None], strong)
        other_labels = targets[donor].lerp(seen.probs, where.share(size)).where(found[:, None], seen.probs)

        rows = slice(len(images) - len(strong), None)
        images[rows] = images[rows].where(certain[:, None, None, None], other)
        labels[rows] = labels[rows].where(certain[:, None], other_labels)
        return images, labels


def drawn_box(rng: Rng, purpose: str, alpha: float, images: Tensor) -> Box:
    """The box of a step for images ``[N, C, H, W]``, its share from Beta(alpha, alpha)."""
    draw, (height, width) = rng.generator(purpose), images.shape[2:]
    return box(height, width, draw.beta(alpha, alpha), int(draw.integers(height)), int(draw.integers(width)))
