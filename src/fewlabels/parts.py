"""Parts from which algorithms are put together: the slots of `PseudoLabel`, and state with an owner.

A slot is called with a `Guess`. State is a buffer, changed without gradient, equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fewlabels import parallel
from fewlabels.types import Guess

Slot = Callable[[Guess], Tensor]


def hard(guess: Guess) -> Tensor:
    """Target: the most probable class, ``[M]`` int64."""
    return guess.probs.argmax(1)


def soft(temperature: float) -> Slot:
    """Target: the probabilities, sharpened, ``[M, K]``."""

    def target(guess: Guess) -> Tensor:
        # From logarithms, as powers of small probabilities underflow.
        tiny = torch.finfo(guess.probs.dtype).tiny
        return (guess.probs.clamp_min(tiny).log() / temperature).softmax(1)

    return target


def sharpened(temperature: float) -> Slot:
    """Align: ``softmax(logits / T)`` in place of ``softmax(logits)``, ``[M, K]``."""
    return lambda guess: (guess.weak_logits.detach() / temperature).softmax(1)


def at_least(tau: float) -> Slot:
    """Select: 1 where the largest probability is at least `tau`, else 0; ``[M]`` float32."""
    return lambda guess: (guess.probs.amax(1) >= tau).float()


class DistributionAlignment(nn.Module):
    """Moves guesses towards the class frequencies of the labels: ``p (eps + p_data) / (eps + p_model)``.

    ReMixMatch (Berthelot et al. 2020, section 3.1) as in google-research/fixmatch, libml/layers.py and
    remixmatch_no_cta.py: `p_model` is the mean of the last 128 batch means of the guesses, `p_data` the
    running mean of the labels with decay 0.999; both start uniform. Over all ranks.

    The original leaves open which comes first, reading or updating; running it shows that `p_data` has the
    newest labels and `p_model` not yet the newest guesses, and so it is here.

    Frequencies that are known beforehand (`known`, of any sum) stay `p_data`.
    """

    recent: Tensor
    """Batch means of the guesses, oldest first, ``[128, K]``."""
    p_data: Tensor
    """Class frequencies of the labels, ``[K]``."""

    def __init__(
        self, classes: int, slots: int = 128, decay: float = 0.999, eps: float = 1e-6, known: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.decay, self.eps = 1.0 if known else decay, eps
        self.register_buffer("recent", torch.full((slots, classes), 1 / classes))
        p_data = torch.tensor(known or [1.0] * classes)
        self.register_buffer("p_data", p_data / p_data.sum())

    def forward(self, probs: Tensor, labels: Tensor) -> Tensor:
        """Guesses ``[M, K]`` and labels as distributions ``[B, K]`` to aligned guesses ``[M, K]``."""
        with torch.no_grad():
            p_model = self.recent.mean(0)
            p_model = p_model / p_model.sum()
            self.p_data.lerp_(parallel.mean(labels.mean(0)), 1 - self.decay)
            p_data = self.p_data / self.p_data.sum()
            aligned = probs * ((self.eps + p_data) / (self.eps + p_model))
            newest = parallel.mean(probs.mean(0, keepdim=True))
            self.recent.copy_(torch.cat((self.recent[1:], newest)))
            return aligned / aligned.sum(1, keepdim=True)
