"""Virtual adversarial training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, entropy, kl, ramp_share
from fewlabels.nets import frozen_statistics
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info, Losses, Net, Views


@dataclass(frozen=True, kw_only=True)
class VAT(Checked):
    """VAT (Miyato et al. 2018), https://arxiv.org/abs/1704.03976.

    What the net believes of an unlabeled image stays the same under the small change that would alter it most;
    and it believes it with certainty (entropy minimisation).
    """

    name: ClassVar[str] = "vat"

    weight: Annotated[float, Range(0)] = 0.3
    """Weight of the adversarial loss at the end of the ramp."""
    eps: Annotated[float | None, Range(0, low_open=True)] = None
    """Length of the change, the Euclidean norm over all pixels and channels of the normalised image; default: 6,
    the original's, times `relative_length`."""
    xi: Annotated[float | None, Range(0, low_open=True)] = None
    """Length of the trial step that finds its direction; default: the original's 1e-6 in float32, where rounding
    has its part in the direction; in lower precision, where it would have all of it, 1 times `relative_length`."""
    w_entropy: Annotated[float, Range(0)] = 0.06
    """Weight of the mean entropy of the predictions on unlabeled images, without ramp."""
    ramp: Annotated[float, Range(0, 1)] = 0.4
    """Share of the training in which the adversarial loss grows to its weight; 0 for no ramp."""

    def build(self, info: Info) -> Algorithm:
        length = relative_length(info.shape)
        eps = 6.0 * length if self.eps is None else self.eps
        xi = self.xi if self.xi is not None else length if info.coarse else 1e-6
        return VATLoss(self, eps, xi)


class VATLoss(Algorithm):
    draws = True
    views = Views(labeled=("weak",), unlabeled=("weak",))

    def __init__(self, config: VAT, eps: float, xi: float) -> None:
        super().__init__()
        self.config, self.eps, self.xi = config, eps, xi
        self.notes = (f"VAT changes images by the length {eps:.4g}, after a trial step of length {xi:.4g}",)

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,), (u,), config = batch.x, batch.u, self.config
        loss_x = cross_entropy(net(x), batch.y).mean()
        with frozen_statistics(net):
            logits = net(u).float()
            fixed = logits.detach()
            change = self.eps * adversarial_direction(net, u, fixed, noise(u, batch.rng), self.xi)
            # the changed prediction comes first, as in google's vat.py; the paper has it second (eq. 5)
            loss_u = kl(net(u + change), fixed).mean()
        uncertainty = entropy(logits).mean()
        grown = ramp_share(batch.progress, config.ramp)
        total = loss_x + config.weight * grown * loss_u + config.w_entropy * uncertainty
        return Losses(total, log(loss=total, loss_x=loss_x, loss_u=loss_u, entropy=uncertainty))


def relative_length(shape: tuple[int, int, int]) -> float:
    """Length of a change of images of `shape` (C, H, W), in that of one as strong per number of 3 x 32 x 32 ones.

    Lengths are meant for the 3,072 numbers of CIFAR-10's and SVHN's images: for those it is 1.
    """
    return math.sqrt(math.prod(shape) / 3072)


def noise(images: Tensor, rng: Rng) -> Tensor:
    """N(0, 1) in the shape of `images`, this rank's rows of what is drawn for the global batch."""
    rows, *shape = images.shape
    drawn = torch.randn(rows * rng.world, *shape, generator=rng.bulk("vat"), device=rng.device)
    return rng.shard(drawn)


def adversarial_direction(net: Net, images: Tensor, logits: Tensor, start: Tensor, xi: float) -> Tensor:
    """Where the prediction for each image changes most, of length 1, ``[M, C, H, W]`` without gradient.

    One step of the power method (Miyato et al. 2018, section 3.3; third_party/vat_utils.py): the gradient of
    ``KL(softmax(logits) || softmax(net(images + d)))`` at d of length `xi` in the direction `start`. Its sum
    over the images replaces their mean, which differs by a factor that drops out, so that the number of
    images makes no difference.
    """
    d = (xi * unit(start)).requires_grad_()
    (gradient,) = torch.autograd.grad(kl(logits, net(images + d)).sum(), d)
    return unit(gradient)


def unit(d: Tensor) -> Tensor:
    """``d / |d|`` for each image ``[M, C, H, W]``, safe against underflow and zeros (third_party/vat_utils.py)."""
    d = d / (1e-12 + d.abs().amax((1, 2, 3), keepdim=True))
    return d / (1e-6 + d.square().sum((1, 2, 3), keepdim=True)).sqrt()
