"""What is kept of images that have passed: a row for each unlabeled one, or the last ones in a ring; over all ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.runtime import parallel


@torch.no_grad()
def follow(state: Tensor, value: Tensor, momentum: float) -> None:
    """``state <- momentum state + (1 - momentum) value`` in place.

    A value that is not finite changes nothing: fp16 overflows now and then, and one such step would stay for ever.
    """
    state.copy_(torch.where(value.isfinite().all(), state.lerp(value, 1 - momentum), state))


def newest(index: Tensor, images: int, counts: Tensor | None = None) -> Tensor:
    """For each of N `images` the last place in `index` ``[M]`` int64 where it stands, ``[N]`` int64; -1 for none.

    counts: ``[M]`` bool, the places that count; None: all. To write twice to one row has no order on a GPU.
    """
    places = torch.arange(len(index), device=index.device)
    if counts is not None:
        places = places.where(counts, -1)
    return torch.full((images,), -1, device=index.device).scatter_reduce_(0, index, places, "amax")


class PerImage(nn.Module):
    """One value, or a vector of them, for each of the N unlabeled images; NaN for those that have not been seen."""

    values: Tensor
    """``[N, *shape]`` float32."""

    def __init__(self, images: int, *shape: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((images, *shape), torch.nan))

    @torch.no_grad()
    def write(self, index: Tensor, values: Tensor) -> None:
        """Keep the `values` ``[M, *shape]`` of the images at rows `index` ``[M]`` int64, those of every rank; of an
        image that comes twice, the last."""
        index, values = parallel.gather(index), parallel.gather(values.float())
        self.values[index] = values[newest(index, len(self.values))[index]]

    @property
    def seen(self) -> Tensor:
        """Which images have a value, ``[N]`` bool."""
        return ~self.values.flatten(1).isnan().any(1) if self.values.ndim > 1 else ~self.values.isnan()


class Votes(nn.Module):
    """The last n guesses of each of N unlabeled images."""

    labels: Tensor
    """``[N, n]`` int32; -1 where none has been written."""
    place: Tensor
    """Where the next is written, ``[N]`` int64."""
    counts: Tensor
    """How often each class is among them, ``[N, K]`` int32."""

    def __init__(self, images: int, size: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.full((images, size), -1, dtype=torch.int32))
        self.register_buffer("place", torch.zeros(images, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(images, classes, dtype=torch.int32))

    @torch.no_grad()
    def write(self, index: Tensor, guess: Tensor) -> None:
        """One guess more ``[M]`` int64 of the images at rows `index` ``[M]`` int64, of every rank; of an image that
        comes twice, the last."""
        index, guess = parallel.gather(index), parallel.gather(guess)
        guess = guess[newest(index, len(self.place))[index]]  # rows of one image are equal from here on
        place = self.place[index]
        old = self.labels[index, place].long()
        classes = torch.arange(self.counts.shape[1], device=index.device)
        change = (classes == guess[:, None]).int() - (classes == old[:, None]).int()
        self.counts[index] = self.counts[index] + change
        self.labels[index, place] = guess.int()
        self.place[index] = (place + 1) % self.labels.shape[1]

    def gaps(self, index: Tensor | None = None) -> Tensor:
        """How much more often the most frequent guess is than the next one, ``[M]`` float32; None: of all images."""
        counts = self.counts if index is None else self.counts[index]
        first, second = counts.topk(2).values.float().unbind(1)
        return first - second


class ClassQueues(nn.Module):
    """The last Q vectors of each of K classes; the oldest of a class are overwritten by its own."""

    rows: Tensor
    """``[K, Q, D]`` float32; 0 where none has been written."""
    written: Tensor
    """How many vectors of each class there were, ``[K]`` int64."""

    def __init__(self, classes: int, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(classes, size, width))
        self.register_buffer("written", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def write(self, vectors: Tensor, labels: Tensor) -> None:
        """Append vectors ``[n, D]`` of the classes `labels` ``[n]`` int64, of every rank in their order."""
        vectors, labels = parallel.gather(vectors.float()), parallel.gather(labels)
        classes, size, _ = self.rows.shape
        of = labels[:, None] == torch.arange(classes, device=labels.device)
        order = (self.written + of.cumsum(0) - 1).gather(1, labels[:, None])[:, 0]
        place = labels * size + order % size
        self.rows.view(classes * size, -1)[place] = vectors[newest(place, classes * size)[place]]
        self.written += of.sum(0)

    def means(self) -> Tensor:
        """The mean of what there is of each class, ``[K, D]``; 0 where nothing is."""
        return self.rows.sum(1) / self.written.clamp(1, self.rows.shape[1])[:, None]


class Ring(nn.Module):
    """The last Q rows of several kinds, such as keys and values; the oldest are overwritten.

    Args:
        size: Q.
        start: for each kind by name, the row ``[W]`` that stands in all places at the start.
    """

    place: Tensor
    """Where the next row is written, 0-d int64."""

    def __init__(self, size: int, **start: Tensor) -> None:
        super().__init__()
        self.size = size
        for name, row in start.items():
            self.register_buffer(name, row.repeat(size, 1))
        self.register_buffer("place", torch.tensor(0))

    def rows(self, name: str) -> Tensor:
        """``[Q, W]``."""
        return self.get_buffer(name)

    @torch.no_grad()
    def write(self, **rows: Tensor) -> None:
        """Append rows ``[n, W]`` of each kind, of every rank in their order; of more than Q the last."""
        for name, new in rows.items():
            new = parallel.gather(new)
            count = len(new)
            at = (self.place + torch.arange(count, device=new.device)) % self.size
            self.get_buffer(name)[at[-self.size :]] = new[-self.size :].to(self.get_buffer(name).dtype)
        self.place.copy_((self.place + count) % self.size)
