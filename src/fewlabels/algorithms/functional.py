"""The formulas of the methods as pure functions of tensors: no state, no configuration, no random numbers.

Shapes: N examples, K classes. Losses are one value per example, ``[N]``, float32; the caller takes the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example.

    Args:
        logits: ``[N, K]``.
        target: class numbers ``[N]`` int64, or distributions ``[N, K]``; for these it is
            ``-sum_k target_k log softmax(logits)_k``.

    Returns:
        ``[N]`` float32.
    """
    return F.cross_entropy(logits.float(), target, reduction="none")


def generalized_cross_entropy(logits: Tensor, target: Tensor, q: float = 0.7) -> Tensor:
    """``(1 - p_target^q) / q`` of each example, from cross-entropy (q to 0) to mean absolute error (q = 1), ``[N]``.

    Zhang and Sabuncu 2018, https://arxiv.org/abs/1805.07836; the probability is at least 1e-7.

    Args:
        logits: ``[N, K]``.
        target: class numbers ``[N]`` int64.
    """
    probs: Tensor = logits.float().softmax(1).gather(1, target[:, None])[:, 0].clamp_min(1e-7)
    return (1 - probs**q) / q


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Squared distance of ``softmax(logits)`` from the distributions `target`, mean over classes, ``[N]``.

    MixMatch (Berthelot et al. 2019, eq. 4).
    """
    return (logits.float().softmax(1) - target).square().mean(1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of ``softmax(logits)``, ``[N]`` in nats."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """``KL(p || q) = sum_k p_k (log p_k - log q_k)`` of the softmax of each, ``[N]``."""
    log_p, log_q = p_logits.float().log_softmax(1), q_logits.float().log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Class numbers ``[N]`` as distributions ``[N, K]`` float32."""
    return F.one_hot(y, classes).float()


def smooth(target: Tensor, smoothing: float) -> Tensor:
    """Label smoothing ``t - s (t - 1/K)`` of distributions ``[N, K]`` (Szegedy et al. 2016, section 7)."""
    return torch.lerp(target, torch.full_like(target, 1 / target.shape[1]), smoothing)


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """``p^(1/T)``, normalised over the classes ``[N, K]`` (MixMatch, eq. 7): ``softmax(log(p) / T)``."""
    # by the largest first, as high powers of all of them underflow
    powered = (probs / probs.amax(1, keepdim=True)) ** (1 / temperature)
    return powered / powered.sum(1, keepdim=True)


def mixup(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """``share a + (1 - share) b`` with one share in [0, 1] per example, ``[N]`` (Zhang et al. 2018)."""
    share = share.to(a.dtype).view(-1, *[1] * (a.dim() - 1))
    return share * a + (1 - share) * b


def offsets(batch: int, parts: int) -> list[int]:
    """Where to cut `batch` rows into `parts` consecutive parts: ``parts + 1`` numbers from 0 to `batch`.

    What does not divide goes to the last parts, one row each (google-research/fixmatch, libml/layers.py).
    """
    small, extra = divmod(batch, parts)
    sizes = [small + (i >= parts - extra) for i in range(parts)]
    return [sum(sizes[:i]) for i in range(parts + 1)]


def interleave(batches: Sequence[Tensor]) -> list[Tensor]:
    """Swap rows between batches of equal size, so that each one has some of the first; its own inverse.

    Cut each of n batches into n parts and swap part i of batch 0 with part i of batch i
    (google-research/fixmatch, libml/layers.py). For the statistics of batch normalisation only.
    """
    n = len(batches)
    cuts = offsets(len(batches[0]), n)
    parts = [[batch[a:b] for a, b in pairwise(cuts)] for batch in batches]
    for i in range(1, n):
        parts[0][i], parts[i][i] = parts[i][i], parts[0][i]
    return [torch.cat(part) for part in parts]


def ramp(progress: Tensor, steps: int, length: int) -> Tensor:
    """Linear ramp ``min(1, step / length)`` of the 0-d `progress` = step / steps."""
    return (progress * (steps / length)).clamp(0, 1)


def ramp_share(progress: Tensor, share: float) -> Tensor:
    """Linear ramp ``min(1, progress / share)``: `share` of the training is its length; 0 for no ramp."""
    return (progress / share).clamp(0, 1) if share > 0 else torch.ones_like(progress)


def annealed(share: Tensor, schedule: str, classes: int) -> Tensor:
    """Threshold of training signal annealing, from 1/K up to 1 (UDA, Xie et al. 2020).

    ``1/K + (1 - 1/K) min(1, c)`` with c = t (``linear``), ``exp(5 (t - 1))`` (``exp``) or ``1 - exp(-5 t)``
    (``log``), where t is the 0-d `share` = step / length of the annealing, which may exceed 1.
    """
    grown = {"linear": share, "exp": (5 * (share - 1)).exp(), "log": 1 - (-5 * share).exp()}[schedule]
    return torch.lerp(torch.full_like(share, 1 / classes), torch.ones_like(share), grown.clamp(max=1))


def below(logits: Tensor, target: Tensor, threshold: Tensor, times: str = "labels") -> Tensor:
    """Which mixed labeled images training signal annealing keeps (RealMix, Nair et al. 2019).

    Args:
        logits: ``[N, K]``.
        target: distributions ``[N, K]``.
        threshold: 0-d, of `annealed`.
        times: what it is multiplied with. ``labels``: an image stays while one of its classes has less probability
            than its share of the label times the threshold. ``logits``, as released (uizard-technologies/realmix,
            realmix.py): while the probability of a class, 0 for those that are not in the label, is less than the
            logit of the class times the threshold; so hardly one goes, and a constant added to all logits changes that.

    Returns:
        ``[N]`` float32, 1 for those that stay, without gradient.
    """
    logits = logits.detach().float()
    probs = logits.softmax(1) * (target > 0)
    limits = threshold * {"labels": target, "logits": logits}[times]
    return (probs < limits).any(1).float()


def percentile(values: Tensor, share: float) -> Tensor:
    """The value at `share` of the sorted `values` ``[N]``, 0-d: that at place ``floor(N share)`` from the smallest.

    In float32, as in uizard-technologies/realmix, realmix.py; the largest for a share of 1.
    """
    place = int(np.float32(len(values)) * np.float32(share))
    return values.sort().values[min(place, len(values) - 1)]


def cosine(step: int, steps: int, warmup: int = 0) -> float:
    """Factor of the learning rate at `step` of `steps`: ``cos(7 pi / 16 * share)``, which ends at 0.195.

    FixMatch (Sohn et al. 2020, section 2.3); during the first `warmup` steps ``step / warmup`` instead, and
    the share counts from there (kekmodel/FixMatch-pytorch, train.py).
    """
    if step < warmup:
        return step / warmup
    return max(0.0, math.cos(7 / 16 * math.pi * (step - warmup) / max(1, steps - warmup)))


# ---- what the unlabeled images are taken for


def quantile(values: Tensor, share: float) -> Tensor:
    """The value at `share` of the sorted `values` ``[N]``, 0-d, linear between neighbours."""
    ordered, place = values.sort().values, share * (len(values) - 1)
    low = int(place)
    return ordered[low].lerp(ordered[min(low + 1, len(values) - 1)], place - low)


def over(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, and 0 where b is 0."""
    return torch.where(b != 0, a / torch.where(b != 0, b, 1.0), 0.0)


def fairness(probs: Tensor, weights: Tensor, p_model: Tensor, label_hist: Tensor) -> Tensor:
    """Self-adaptive fairness (FreeMatch, Wang et al. 2023, section 3.2): ``sum_c v_c log u_c``, 0-d, at most 0.

    u and v, each normalised to sum 1, are the mean probabilities of the strong and of the weak views, each divided by
    the share of the images that are taken for the class. Gradient goes through the mean of `probs` alone.

    Args:
        probs: of the strong views, ``[N, K]``.
        weights: of the images, ``[N]``, 0 for those that do not count; where none counts the value is 0.
        p_model: running mean of the probabilities of the weak views, ``[K]``.
        label_hist: running shares of their labels, ``[K]``.
    """
    share = over(weights, weights.sum())[:, None]
    u = over((share * probs).sum(0), (share * one_hot(probs.argmax(1), probs.shape[1])).sum(0))
    v = over(p_model, label_hist)
    return (over(v, v.sum()) * (over(u, u.sum()) + 1e-12).log()).sum() * (weights > 0).any()


# ---- labels missing not at random


def inverse_weights(prior: Tensor, probs: Tensor, upper: float) -> Tensor:
    """Weights ``[N]`` of N images with which their probabilities ``[N, K]`` give the class shares `prior` ``[K]``:
    ``clip(prior . pinv(probs), 0, upper)``, without gradient (JoyHuYY1412/CADR-FixMatch, fixmatch.py).

    Singular values of at most 10 max(N, K) eps times the largest are taken for 0, as in that code.
    """
    probs = probs.detach().float().nan_to_num()
    cutoff = 10 * max(probs.shape) * torch.finfo(torch.float32).eps
    weights: Tensor = (prior @ torch.linalg.pinv(probs, rtol=cutoff)).clamp(0, upper)
    return weights


def log_shares(log_probs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Logarithms ``[K]`` of the class shares ``weights . probs`` (None: the mean of probs) from ``log_probs [N, K]``,
    at least those of the smallest normal float32."""
    tiny = torch.finfo(torch.float32).tiny
    # a weight of 0 counts as e^-1000, far below what is left in the end: minus infinity has no gradient
    scale = -math.log(len(log_probs)) if weights is None else weights.log().clamp_min(-1000)[:, None]
    return (log_probs + scale).logsumexp(0).clamp_min(math.log(tiny))


def log_importance(log_shares: Tensor, classes: Tensor) -> Tensor:
    """``log W_i``, ``[B]``: the importance ``1 / share`` of each image's class, of mean 1 in the batch."""
    inverse = -log_shares[classes]
    return inverse - inverse.logsumexp(0) + math.log(len(classes))


def class_thresholds(tau: float, prior: Tensor, beta: float) -> Tensor:
    """``tau (prior / max prior)^beta``, ``[K]``: lower for classes that are predicted less often."""
    thresholds: Tensor = tau * (prior / prior.max()) ** beta
    return thresholds


# ---- classes with few labels


def counted(labels: Tensor, classes: int) -> Tensor:
    """How often each of K `classes` is among the `labels` ``[N]`` int64, ``[K]`` float64."""
    counts = torch.zeros(classes, dtype=torch.float64, device=labels.device)
    return counts.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float64))


def effective_weights(counts: Tensor) -> Tensor:
    """Weights ``(1 - beta) / (1 - beta^n)`` of the classes, brought to mean 1, ``[K]`` float32.

    By the effective number of images (Cui et al. 2019, https://arxiv.org/abs/1901.05555, equation 2) with
    ``beta = 1 - 1/N`` and the mean N of the `counts` n, ``[K]``, which are at least 1.
    """
    n = counts.double()
    weights = -1 / torch.expm1(n * torch.log1p(-1 / n.mean()))
    return (weights / weights.mean()).float()


def share_of_each(values: Tensor, labels: Tensor, share: Tensor, classes: int) -> Tensor:
    """For each of K `classes` the value that the same `share` of its own values reaches, ``[K]``.

    That is the value at place ``max(int(n share) - 1, 0)`` of its n values, the largest first; of a class without any
    it means nothing.

    Args:
        values: ``[N]``.
        labels: the class of each value, ``[N]`` int64.
        share: 0-d, from 0 to 1.
    """
    counts = counted(labels, classes)
    order = values.sort(descending=True, stable=True).indices
    order = order[labels[order].sort(stable=True).indices]  # by class, and there by value
    place = (counts * share.double() + 1e-9).long() - 1  # 0.29 * 100 is 28.999...
    start = (counts.cumsum(0) - counts).long()
    return values[order[(start + place.clamp_min(0)).clamp(max=len(values) - 1)]]


# ---- unlabeled images of no known class


def familiarity(logits: Tensor) -> Tensor:
    """``logsumexp_k logits_k``, ``[N]``: minus the free energy at temperature 1 (Liu et al. 2020,
    https://arxiv.org/abs/2010.03759, eq. 4). The higher, the more familiar is the image."""
    return logits.float().logsumexp(1)


def pairs(logits: Tensor) -> Tensor:
    """What one-vs-all classifiers say: for each class that an image is none of it, and that it is, two probabilities of
    sum 1 (OpenMatch, Saito et al. 2021, https://arxiv.org/abs/2105.14148; VisionLearningGroup/OP_Match).

    Args:
        logits: ``[N, 2K]``, the K of "it is none" first.

    Returns:
        ``[N, 2, K]`` float32.
    """
    count, width = logits.shape
    return logits.float().reshape(count, 2, width // 2).softmax(1)


def one_vs_all(logits: Tensor, target: Tensor) -> Tensor:
    """Loss of one-vs-all classifiers on labeled images, ``-log r_1y + max_k -log r_0k`` over the classes k that are not
    the label y; of the wrong classes the hardest counts alone. 1e-8 is added to each probability (OpenMatch; see
    `pairs`).

    Args:
        logits: ``[N, 2K]``, whose `pairs` are r.
        target: labels y, ``[N]`` int64.

    Returns:
        ``[N]`` float32.
    """
    none, own = pairs(logits).unbind(1)
    hardest = none.scatter(1, target[:, None], 1.0).amin(1)
    own = own.gather(1, target[:, None])[:, 0]
    return -(own + 1e-8).log() - (hardest + 1e-8).log()


def pair_entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the `pairs` of `logits` ``[N, 2K]`` over the classes, ``[N]`` in nats (OpenMatch)."""
    both = pairs(logits)
    return -(both * (both + 1e-8).log()).sum(1).mean(1)


def otsu(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Cut `scores` in two groups as Otsu's rule does (Otsu 1979, https://doi.org/10.1109/TSMC.1979.4310076).

    Of all cuts between different values, not of a histogram's only, it is the one with the largest variance between
    the groups, ``w_0 w_1 (m_0 - m_1)^2`` for their shares w and means m.

    Args:
        scores: finite, or NaN for those that do not count, ``[N]``.

    Returns:
        The smallest score of the upper group, in the dtype of `scores`, and the share of the variance that is between
        the groups, from 0 (all scores are equal) to 1 (two values), float64; both 0-d.
    """
    ordered = scores.sort().values  # NaN comes last
    values, known = ordered.double(), ~ordered.isnan()
    n = known.sum().clamp_min(1)
    centred = torch.where(known, values - torch.where(known, values, 0.0).sum() / n, 0.0)
    below, size = centred.cumsum(0)[:-1], torch.arange(1, len(scores), device=scores.device)
    # with sums S and -S of the centred groups of k and n - k scores it is S^2 / (k (n - k))
    between = torch.where(ordered[:-1] < ordered[1:], below.square() / (size * (n - size)).clamp_min(1), 0.0)
    if not len(between):
        return ordered[0].nan_to_num(), values.new_zeros(())
    best, best_cut = between.max(0)
    variance = centred.square().sum() / n
    return ordered[best_cut + 1].nan_to_num(), torch.where(best > 0, best / variance, 0.0).clamp(max=1)
