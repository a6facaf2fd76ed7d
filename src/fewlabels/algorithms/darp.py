"""DARP, a part: guesses of all unlabeled images that agree with given shares of the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.memory import PerImage
from fewlabels.algorithms.slots import Part, Seen, Slot, guesses

NEWTON, CLOSE = 20, 1e-6
"""Newton's steps for each class, at most, and the relative distance from the wanted sum that is near enough. They start
where the last ones ended, on a convex function that is nearly linear, so that a few are enough."""


class Refined(Part):
    """Distribution aligning refinery of pseudo-labels (DARP, Kim et al. 2020, https://arxiv.org/abs/2007.08844).

    The last guess of each of N unlabeled images is kept, and every so many steps all of them are refined: the least
    likely images of each class lose it (`purged`), and the rest is moved as little as it can be to the wanted number of
    images of each class (`projected`). Images are guessed about by their refined rows (bbuing9/DARP).

    Args:
        goal: wanted images of each class, ``[K]``, of sum N.
        start: steps before the first refinement; until then guesses are what they are.
        every: steps from one to the next.
        alpha: images of each class that keep it, in units of `goal`.
        iterations: of the projection.
    """

    goal: Tensor
    """``[K]`` float64."""
    refined: Tensor
    """``[N, K]`` float32, as of the last refinement."""

    def __init__(self, usual: Slot | None, goal: Tensor, start: int, every: int, alpha: float, iterations: int) -> None:
        super().__init__()
        self.usual, self.start, self.every, self.alpha, self.iterations = usual, start, every, alpha, iterations
        images, classes = round(float(goal.sum())), len(goal)
        self.last = PerImage(images, classes)
        self.register_buffer("goal", goal.double(), persistent=False)
        self.register_buffer("refined", torch.full((images, classes), 1 / classes))

    def join(self, step: Consistency) -> None:
        step.put("align", self.align)
        step.waits = True  # what it does depends on the number of the step, which a recorded one does not see

    @torch.no_grad()
    def align(self, seen: Seen) -> Tensor:
        """Align: the refined guesses, ``[M, K]``; unseen images are of all classes alike."""
        probs = guesses(self.usual, seen)
        rows, since = seen.batch.index, seen.batch.rng.step - self.start
        self.last.write(rows, probs)
        if since < 0:
            return probs
        if since % self.every == 0:
            table = self.last.values.double().nan_to_num(1 / probs.shape[1])
            self.refined.copy_(projected(purged(table, self.goal, self.alpha), self.goal, self.iterations))
        return self.refined[rows]


def purged(table: Tensor, goal: Tensor, alpha: float) -> Tensor:
    """Guesses without those that are noise, ``[N, K]`` float64, of sum 1 for each image.

    Of each class the ``int(alpha goal)`` images with the most of it keep it, times a factor that makes their sum the
    wanted one; the others have next to nothing of it.

    Args:
        table: guesses, ``[N, K]`` float64.
        goal: wanted images of each class, ``[K]`` float64.
    """
    rank = table.argsort(dim=0, descending=True, stable=True).argsort(dim=0)
    kept = table * (rank < (alpha * goal + 1e-9).floor())
    kept = kept * (goal + 1e-6) / (kept.sum(0) + 1e-6) + 1e-6
    return kept / kept.sum(1, keepdim=True)


def projected(probs: Tensor, goal: Tensor, iterations: int) -> Tensor:
    """Guesses nearest to `probs` that have the wanted number of images of each class, ``[N, K]`` float64.

    ``probs_ic x_i exp(-nu_c H_i)`` with the entropy H of each image, so that unsure ones move more; x makes the sum
    of each image 1 and nu that of each class the wanted one, in turn.

    Args:
        probs: above 0, ``[N, K]`` float64.
        goal: wanted images of each class, ``[K]`` float64, of sum N.
    """
    entropy = (-probs * (probs + 1e-6).log()).sum(1, keepdim=True).clamp_min(1e-6)
    moved, nu = probs.log(), torch.zeros_like(goal)
    goal = goal + 1e-6
    for _ in range(iterations):
        rows, change = moved.log_softmax(1), torch.zeros_like(nu)  # at the present nu
        for _ in range(NEWTON):
            terms = (rows - change * entropy).exp_()
            found = terms.sum(0).clamp_min(torch.finfo(terms.dtype).tiny)
            excess = found.log() - goal.log()
            if bool(excess.abs().amax() < CLOSE):
                break
            change = change + excess * found / (terms * entropy).sum(0).clamp_min(torch.finfo(terms.dtype).tiny)
        nu = nu + change
        moved = probs.log() - nu * entropy
    return moved.softmax(1)
