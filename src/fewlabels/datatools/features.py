"""Features of pictures that none of their labels has shaped: those of a net that has learned from other photographs, or
distances to patches that are common in these pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from fewlabels.data.resized import Resized, taken
from fewlabels.data.source import Images, OnDemand, Progress
from fewlabels.inference.features import SIDE, features_of, learned_body
from fewlabels.nets import learned
from fewlabels.runtime.rng import philox

LONGEST = 32
"""Pixels of the longer side that is looked at; larger pictures are made smaller."""

BLOCK = 128
"""Pictures at a time."""


def learned_features(
    name: str,
    images: Images | OnDemand,
    rows: NDArray[np.int64],
    *,
    net: learned.Learned = learned.NETS[0],
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Features ``[n, D]`` of unit length of the pictures at `rows`, by a learned net that stays as it is.

    It sees the pictures with a shorter side of `SIDE` pixels; what was computed once is kept on the disk, under `name`.
    """
    sized = Resized(images, SIDE) if min(images.shape[1:3]) != SIDE else images
    _, height, width, channels = sized.shape
    body = learned_body(net, (channels, height, width), torch.device(device))
    found = features_of(body, sized, rows, body.table(name), progress).float().cpu().numpy()
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)


def small(images: Images, longest: int = LONGEST) -> NDArray[np.float32]:
    """Means over squares of pixels, so that no side is longer than `longest`: float32 ``[N, h, w, C]`` in 0..1."""
    n, height, width, channels = images.shape
    factor = -(-max(height, width) // longest)
    f = min(factor, height, width)
    h, w = height // f, width // f
    x = images[:, : h * f, : w * f].astype(np.float32) / 255
    return np.asarray(x.reshape(n, h, f, w, f, channels).mean((2, 4)), np.float32)


def patch_features(
    images: Images | OnDemand, rows: NDArray[np.int64], *, seed: int = 1, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Features ``[n, 4 M]`` of the pictures at `rows`, of M (at most 400) common patches.

    Coates, Ng and Lee 2011 (An analysis of single-layer networks in unsupervised feature learning): patches with mean 0
    and variance 1, whitened; k-means; "triangle" activations, summed over the four quarters of the picture. Returned is
    their square root, which evens out their variance.
    """
    random = philox(seed, "probe patches")
    some = small(taken(images, rows[np.sort(random.choice(len(rows), min(len(rows), 2000), replace=False))]))
    side, stride = (6, 2) if min(some.shape[1:3]) >= 16 else (min(4, *some.shape[1:3]), 1)
    each = np.concatenate([_patches(x, side, stride).reshape(-1, side * side * some.shape[-1]) for x in _blocks(some)])
    each = _normal(each[random.choice(len(each), min(len(each), 40_000), replace=False)])
    mean = each.mean(0)
    values, vectors = np.linalg.eigh(np.cov(each.T))
    white = ((vectors / np.sqrt(np.maximum(values, 0) + 0.1)) @ vectors.T).astype(np.float32)
    count = min(400 if side == 6 else 200, len(each))
    found = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096, max_iter=20).fit((each - mean) @ white)
    centres = found.cluster_centers_.astype(np.float32)
    norms = (centres**2).sum(1)
    out = np.empty((len(rows), 4 * count), np.float32)
    for start in range(0, len(rows), BLOCK):
        x = _patches(small(taken(images, rows[start : start + BLOCK])), side, stride)
        z = (_normal(x) - mean) @ white
        d = np.sqrt(np.maximum((z**2).sum(-1, keepdims=True) - 2 * z @ centres.T + norms, 0))
        active = np.maximum(d.mean(-1, keepdims=True) - d, 0)
        middle = [max(1, n // 2) for n in active.shape[1:3]]
        quarters = [
            active[:, up, left].sum((1, 2))
            for up in (slice(None, middle[0]), slice(middle[0], None))
            for left in (slice(None, middle[1]), slice(middle[1], None))
        ]
        out[start : start + BLOCK] = np.sqrt(np.concatenate(quarters, 1))
        if progress is not None:
            progress(min(start + BLOCK, len(rows)), len(rows))
    return out


def _blocks(x: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))


def _patches(x: NDArray[np.float32], side: int, stride: int) -> NDArray[np.float32]:
    """``[N, h, w, C] -> [N, rows, columns, C side side]``."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    return np.ascontiguousarray(windows).reshape(*windows.shape[:3], -1)


def _normal(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0 and variance 1 of each patch; ten grey levels squared are added to the variance, so that noise stays
    small."""
    patches = patches - patches.mean(-1, keepdims=True)
    return np.asarray(patches / np.sqrt(patches.var(-1, keepdims=True) + 10 / 255**2), np.float32)
