"""ReMixMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot, ramp, sharpen, squared_error
from fewlabels.algorithms.mixing import Mix, interleaved_logits, mix_groups, require_equal_batches
from fewlabels.algorithms.slots import DistributionAlignment
from fewlabels.nets import frozen_statistics, glorot_normal_
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Tokens, Views


@dataclass(frozen=True, kw_only=True)
class ReMixMatch(Checked):
    """ReMixMatch (Berthelot et al. 2020), https://arxiv.org/abs/1911.09785.

    MixMatch with strong views, guesses aligned with the class frequencies of the labels, and a second task:
    to tell by how much an image was rotated. The defaults are those of google-research/fixmatch's
    remixmatch_no_cta.py.
    """

    name: ClassVar[str] = "remixmatch"

    beta: Annotated[float, Range(0, low_open=True)] = 0.75
    """Parameter of MixUp's Beta distribution."""
    w_match: Annotated[float, Range(0)] = 1.5
    """Weight of the loss on mixed unlabeled images at the end of the ramp."""
    w_kl: Annotated[float, Range(0)] = 0.5
    """Weight of the loss on the first strong view, unmixed, at the end of the ramp."""
    w_rot: Annotated[float, Range(0)] = 0.5
    """Weight of the rotation loss; 0 for no rotation head."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens the guessed labels; below 1 makes them more certain."""
    ramp_steps: Annotated[int, Range(1)] = 16384
    """Steps in which the unlabeled losses grow to their weights."""
    redux: Literal["swap", "mean", "1st"] = "swap"
    """Whose guess a view is labeled with: that of the next view, the mean of all, or that of the weak view
    (as in the paper). With "swap" and one strong view, its unmixed loss has its own guess for a target."""
    align: bool = True
    """Distribution alignment."""
    use_xe: bool = True
    """Cross-entropy for the mixed unlabeled images, else MixMatch's squared error."""
    strong_views: Annotated[int, Range(1)] = 1
    """Strong views of each unlabeled image (the paper's K)."""
    mix: Mix = "xxy.yxy"
    """What labeled images x and unlabeled ones y are mixed with: `xxy.yxy` everything with everything, `xx.yy`
    each kind with its own, `.` nothing (MixMode of google-research/fixmatch)."""
    labeled_view: Literal["weak", "strong"] = "weak"
    """How strongly the labeled images are augmented; `strong` in google's cta/cta_remixmatch.py."""
    p_unlabeled: tuple[Annotated[float, Range(0)], ...] = ()
    """Known shares of the classes among the unlabeled images, in any unit, towards which guesses are aligned;
    default: the class frequencies of the labels, as seen so far."""

    def build(self, info: Info) -> Algorithm:
        require_equal_batches("ReMixMatch", info)
        _, height, width = info.shape
        if self.w_rot > 0 and height != width:
            raise ValueError(
                f"ReMixMatch rotates images by 90 degrees and needs square ones, got {height} x {width}; "
                "resize them, or set w_rot to 0"
            )
        if self.p_unlabeled and not self.align:
            raise ValueError("ReMixMatch.p_unlabeled is what guesses are aligned with, but align is off")
        if self.p_unlabeled and (len(self.p_unlabeled) != info.classes or sum(self.p_unlabeled) == 0):
            raise ValueError(
                f"ReMixMatch.p_unlabeled must have a share for each of the {info.classes} classes, not all of them 0, "
                f"got {self.p_unlabeled}"
            )
        return ReMixMatchLoss(self, info)


class ReMixMatchLoss(Algorithm):
    draws = True
    tokens = Tokens(cutout=False)

    def __init__(self, config: ReMixMatch, info: Info) -> None:
        super().__init__()
        self.config, self.classes, self.steps = config, info.classes, info.steps
        self.views = Views(labeled=(config.labeled_view,), unlabeled=("weak",) + ("strong",) * config.strong_views)
        self.align = DistributionAlignment(info.classes, known=config.p_unlabeled) if config.align else None
        if config.w_rot > 0:
            rotation = nn.Linear(info.features, 4)
            glorot_normal_(rotation)
            self.heads = {"rotation": rotation}

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        config = self.config
        (x,), views = batch.x, batch.u
        onehot = one_hot(batch.y, self.classes)
        probs, first_strong = self.guesses(views, net)
        aligned = self.align.aligned(torch.cat(probs), onehot) if self.align is not None else torch.cat(probs)
        guessed = list(torch.split(sharpen(aligned, config.temperature), len(x)))

        images, labels = [x, *views], [onehot, *guessed]
        images, labels = mix_groups(config.mix, images, labels, config.beta, batch.rng)
        logits_x, *logits_u = interleaved_logits(net, images, updates=len(views))

        unlabeled_loss = cross_entropy if config.use_xe else squared_error
        loss_x = cross_entropy(logits_x, labels[0]).mean()
        loss_u = unlabeled_loss(torch.cat(logits_u), torch.cat(labels[1:])).mean()
        grown = ramp(batch.progress, self.steps, config.ramp_steps)
        total = loss_x + config.w_match * grown * loss_u
        terms = {"loss_x": loss_x, "loss_u": loss_u}
        if first_strong is not None:
            terms["loss_kl"] = cross_entropy(first_strong, guessed[0]).mean()
            total = total + config.w_kl * grown * terms["loss_kl"]
        if config.w_rot > 0:
            terms["loss_rot"] = self.rotation_loss(views[1], batch, net)
            total = total + config.w_rot * terms["loss_rot"]
        confidence = torch.cat(probs).amax(1).mean()
        logged = log(loss=total, **terms, confidence=confidence)
        return Losses(total, logged, pseudo=guessed[0].argmax(1))

    def guesses(self, views: tuple[Tensor, ...], net: Net) -> tuple[list[Tensor], Tensor | None]:
        """For each view the probabilities ``[B, K]`` it is labeled with, no gradient; and the logits of the
        first strong view, with gradient, where the loss needs them. With the statistics of the batch.
        """
        needed = [0] if self.config.redux == "1st" else list(range(len(views)))
        logits: dict[int, Tensor] = {}
        with frozen_statistics(net):
            if self.config.w_kl > 0:
                logits[1] = net(views[1]).float()
            with torch.no_grad():
                for i in needed:
                    if i not in logits:
                        logits[i] = net(views[i]).float()
        own = [logits[i].detach().softmax(1) for i in needed]
        if self.config.redux == "swap":
            probs = own[1:] + own[:1]
        else:
            probs = [torch.stack(own).mean(0)] * len(views)
        return probs, logits.get(1) if self.config.w_kl > 0 else None

    def rotation_loss(self, images: Tensor, batch: Batch, net: Net) -> Tensor:
        """Mean cross-entropy of the four rotations, one for each consecutive quarter of the global batch."""
        rows, rank, world = len(images), batch.rng.rank, batch.rng.world
        quarter = 4 * torch.arange(rank * rows, (rank + 1) * rows) // (world * rows)
        counts = torch.bincount(quarter, minlength=4).tolist()
        rotated = torch.cat([turn(part, k) for k, part in enumerate(torch.split(images, counts))])
        with frozen_statistics(net):
            features = net.features(rotated)
        logits = net.heads["rotation"](features)
        return cross_entropy(logits, quarter.to(images.device, non_blocking=True)).mean()


def turn(images: Tensor, label: int) -> Tensor:
    """Images turned by 0, 180, 90 or 270 degrees counter-clockwise: the original's labels 0 to 3."""
    return torch.rot90(images, (0, 2, 1, 3)[label], (2, 3))
