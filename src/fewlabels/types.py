"""The values that pass between the loop, the views, the algorithms and the nets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from fewlabels.runtime.rng import Rng

CopyKind = Literal["none", "cifar10", "svhn", "stl-10", "color", "cutout"]
"""How copies of images are made (uizard-technologies/realmix, scripts/make_aug_copy.py)."""


class Copies(NamedTuple):
    """Copies that take the place of images: each is changed by chance, once and for all."""

    kind: CopyKind
    number: int
    """Of each image, at least 1."""


class Views(NamedTuple):
    """Views of each labeled and each unlabeled image that an algorithm wants: ``"weak"``, ``"strong"``, of unlabeled
    images ``"medium"``, or one of `further`.

    Repeated names are independent draws: ``unlabeled=("weak", "weak")`` is MixMatch's pair.
    """

    labeled: tuple[str, ...] = ("weak",)
    unlabeled: tuple[str, ...] = ("weak", "strong")
    copies: Copies | None = None
    """What the unlabeled views are views of, in place of the images: in each step one of the copies of each image."""
    further: tuple[tuple[str, str], ...] = ()
    """Views of the algorithm's own, name and token of `Train.augment`: ``(("medium", "r1_10_25"),)``."""


class Tokens(NamedTuple):
    """What the tokens of `Train.augment` mean to an algorithm, as in its script of google-research/fixmatch."""

    wanted: int | None = None
    """How many there are; default: one for the labeled images, the first unlabeled view and the further ones."""
    cta: bool = True
    """A strong view whose token has no strong part is CTAugment's; otherwise as weak as the token says."""
    cutout: bool = True
    """A cutout follows CTAugment (cta/lib/train.py)."""


class Batch(NamedTuple):
    """What an algorithm sees in one step: B labeled images, M unlabeled ones, on one rank.

    There is no field for the true labels of unlabeled images: that leak cannot be written.
    """

    x: tuple[Tensor, ...]
    """Labeled views, each ``[B, C, H, W]`` float, normalised."""
    y: Tensor
    """Labels, ``[B]`` int64."""
    u: tuple[Tensor, ...]
    """Unlabeled views, each ``[M, C, H, W]`` float, normalised."""
    index: Tensor  # type: ignore[assignment]  # a batch is no sequence to search
    """Rows of the unlabeled set, ``[M]`` int64 (for per-image state)."""
    progress: Tensor
    """step / steps, 0-d float32 on the device; the last step sees (T - 1) / T."""
    rng: Rng
    labeled_index: Tensor
    """Rows of the labeled set, ``[B]`` int64 (for state of each labeled image)."""


class Losses(NamedTuple):
    total: Tensor
    """Scalar; the only thing with a gradient."""
    log: Mapping[str, Tensor]
    """Detached values by name, 0-d or one for each class, ``[K]``; the loop decides when to read them."""
    pseudo: Tensor | None = None
    """What the unlabeled images were taken for, ``[M]`` int64 in the order of `Batch.index`, where an algorithm
    takes them for one class each. The loop compares it with the truth, if that is known."""
    kept: Tensor | None = None
    """Weights ``[M]`` of the pseudo-labels in the loss; None for 1."""


class Outputs(NamedTuple):
    """What the net gives for N images."""

    features: Tensor
    """``[N, D]`` float32."""
    logits: Tensor
    """``[N, K]`` float32."""
    maps: Tensor | None = None
    """``[N, D, h, w]`` float32, whose means are the features; of a step that asks for them, and a net that has them."""


class Findings(NamedTuple):
    """What an algorithm has found out about unlabeled images, for a table and a contact sheet in the run folder."""

    name: str
    """Of the files, without suffix, and of the entry in result.json."""
    title: str
    """What the sheet shows, in a few words."""
    rows: Tensor
    """Rows of the unlabeled set, ``[n]`` int64, the most notable first."""
    columns: Mapping[str, Sequence[object]]
    """Further columns of the table, n values each."""
    captions: Sequence[str]
    """What stands under the pictures of the sheet, of the first rows."""
    result: Mapping[str, object]
    """For result.json."""


class Info(NamedTuple):
    """What an algorithm's config is told about the run when it builds the algorithm."""

    classes: int
    shape: tuple[int, int, int]
    """(C, H, W) of the images."""
    features: int
    """Width D of the net's features, for heads that the algorithm asks for."""
    labeled_counts: Tensor
    """Labeled images per class, ``[K]`` int64."""
    unlabeled: int
    """Size of the unlabeled set."""
    steps: int
    batch: int
    """Labeled images per step, over all ranks."""
    unlabeled_batch: int
    """Unlabeled images per step, over all ranks."""
    coarse: bool = False
    """Whether the net's products have fewer bits than float32's (bf16, fp16, TF32)."""
    maps: tuple[int, int] | None = None
    """(h, w) of the maps whose means are the features; of a net that has them."""
    own_counts: Tensor | None = None
    """`labeled_counts` before predictions of a generation of CReST joined them, ``[K]`` int64; None: the same."""


class Known(NamedTuple):
    """What can be fitted at the start of a training: features of P images, of which L are labeled."""

    features: Tensor
    """``[P, D]`` float32."""
    labeled: Tensor
    """Rows of the labeled ones, ``[L]`` int64, each once."""
    y: Tensor
    """Their labels, ``[L]`` int64."""
    classes: int
    seed: int
    show: Callable[[int, int], None] = lambda done, total: None
    """Told how much of a long fit is done."""


class Fitted(NamedTuple):
    """A last linear layer, and what is to be said of it."""

    weight: Tensor
    """``[K, D]`` float32."""
    bias: Tensor
    """``[K]`` float32."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """What result.json says under `fit`."""
    plain: tuple[Tensor, Tensor] | None = None
    """Weight and bias of the layer that the labels alone make, to compare with."""


class Net(Protocol):
    """A model as algorithms and rules see it: ``net(x) == net.head(net.features(x))``."""

    dim: int
    """Width D of the features."""
    heads: nn.ModuleDict
    """Those that the algorithm asked for, by name; each takes features ``[N, D]`` float32."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, ``[N, C, H, W] -> [N, K]``."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, D]``."""
        ...

    def maps(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, D, h, w]``, whose means are the features; see `Info.maps` for whether it has them."""
        ...

    def head(self, f: Tensor) -> Tensor:
        """``[N, D] -> [N, K]``."""
        ...


Rule = Callable[[Net, Tensor], Tensor]
"""``(model, features [N, D]) -> logits [N, K]``: how a model predicts. A plain function, without state of its own."""
