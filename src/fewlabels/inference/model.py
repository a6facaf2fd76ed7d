"""Models that predict: `Model`; and `Predictor`, a trained one with all that is needed to classify images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels import nets
from fewlabels.algorithms.base import Algorithm, by_head
from fewlabels.augment.pixels import Normalize
from fewlabels.config.settings import Data, Train
from fewlabels.data.features import FeatureStore
from fewlabels.data.gather import AnyStore, make_store
from fewlabels.data.pictures import PLAIN, Decoding
from fewlabels.data.residency import choose
from fewlabels.data.source import OnDemand
from fewlabels.data.split import Split
from fewlabels.inference.body import check_body, with_body
from fewlabels.runs.checkpoint import check_tensors
from fewlabels.runs.run import Run, RunError
from fewlabels.types import Info, Rule

PIXELS_PER_BATCH = 2**20
"""Image positions (H * W) of one forward pass without gradient: 1024 images of 32 x 32."""


class Model(nn.Module):
    """A net, further heads on its features, and a rule that predicts: trained, averaged, saved and evaluated as one.

    Features are computed in `dtype` (None: as they are) and leave, like the logits, in float32. Called, it gives the
    logits that are trained, ``head(features(x))``; `predict` gives those that count, which the rule makes.

    Args:
        net: has ``dim``, ``features`` and ``head``.
        heads: by name; each takes features ``[N, D]``.
        rule: ``(model, features [N, D]) -> logits [N, K]``, a plain function. Whatever it needs is a head, so that it
            is averaged, saved and brought to the device together with the rest.
        dtype: of autocast.
        frozen: names in the net's state dict of the body, where it does not learn (`nets.freeze`): it is neither
            averaged nor saved, its batch normalisation stays in evaluation mode, and so does all of it where none of
            its parts learns.
        held: whether the net's batch normalisation stays in evaluation mode although it learns: it normalises with the
            statistics that it starts with, and keeps them.
    """

    def __init__(
        self,
        net: nn.Module,
        heads: Mapping[str, nn.Module] | None = None,
        rule: Rule = by_head,
        dtype: torch.dtype | None = None,
        frozen: frozenset[str] = frozenset(),
        held: bool = False,
    ) -> None:
        super().__init__()
        assert _is_stateless(rule), f"the rule {rule!r} must be a function without state; let its state be a head"
        self.net, self.heads = net, nn.ModuleDict(heads)
        self.rule, self.dtype, self.held = rule, dtype, held
        self.frozen = frozenset(f"net.{name}" for name in frozen)
        """Names in the state dict of the body that does not learn."""
        self.fixed = bool(frozen) and frozen.issuperset(k for k in net.state_dict() if not k.startswith("linear."))
        """Whether nothing below the head learns, so that the features of an image are always the same."""
        norms = (name for name, part in net.named_modules() if isinstance(part, _BatchNorm))
        self.still = frozenset(f"net.{name}" for name in norms if held or f"{name}.running_mean" in frozen)
        """Names of the norms that keep their statistics, and normalise with them in training too."""
        self.dim: int = net.dim  # type: ignore[assignment]
        self.compiled: Callable[[Tensor], Tensor] | None = None

    def compile_features(self) -> None:
        """Compile the features, which cost the time; the rules around them stay as they are."""
        # the batches of a step differ in size, but each one has the same size in every step
        self.compiled = torch.compile(self.net.features, dynamic=False)  # type: ignore[arg-type]

    def twin(self) -> Model:
        """The same net and heads, to be compiled apart."""
        frozen = frozenset(name.removeprefix("net.") for name in self.frozen)
        return Model(self.net, dict(self.heads.items()), self.rule, self.dtype, frozen, self.held).train(self.training)

    def train(self, mode: bool = True) -> Model:
        """As of any module, but for a body that does not learn."""
        super().train(mode)
        if self.fixed:
            for name, part in self.net.named_children():
                if name != "linear":
                    part.eval()
        for name in self.still:
            self.get_submodule(name).eval()
        return self

    def learned(self) -> dict[str, Tensor]:
        """The state dict without a body that does not learn: what is saved."""
        return {name: value for name, value in self.state_dict().items() if name not in self.frozen}

    def merged(self) -> dict[str, Tensor]:
        """The whole state dict, as a model without bypasses has it that gives the same."""
        heads = {name: value for name, value in self.state_dict().items() if not name.startswith("net.")}
        return {f"net.{name}": value for name, value in nets.merged(self.net).items()} | heads

    def adopt(self, learned: Mapping[str, Tensor]) -> None:
        """Take over what `learned` gave."""
        missing, unknown = self.load_state_dict(learned, strict=False)
        assert self.frozen.issuperset(missing) and not unknown

    def features(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, D]`` float32; features that were computed before, ``[N, D]``, are returned as they are.

        In evaluation mode those that are `fixed` have the bits of float16, in which they are kept.
        """
        if x.ndim == 2:
            return x
        # casts of weights are for this pass only; a recorded step must not meet those of another one
        with torch.autocast(x.device.type, self.dtype, self.dtype is not None, cache_enabled=False):
            f: Tensor = (self.compiled or self.net.features)(x)  # type: ignore[operator]
        return f.half().float() if self.fixed and not self.training else f.float()

    def maps(self, x: Tensor) -> Tensor:
        """``[N, C, H, W] -> [N, D, h, w]`` float32, whose means are the features; not compiled."""
        with torch.autocast(x.device.type, self.dtype, self.dtype is not None, cache_enabled=False):
            maps: Tensor = self.net.maps(x)  # type: ignore[operator]
        return maps.float()

    @property
    def classes(self) -> int:
        return int(self.net.linear.out_features)  # type: ignore[union-attr, arg-type]

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Give the net's last layer these weights, ``[K, D]`` and ``[K]``."""
        linear = self.net.linear
        linear.weight.copy_(weight)  # type: ignore[union-attr, operator]
        linear.bias.copy_(bias)  # type: ignore[union-attr, operator]

    def head(self, f: Tensor) -> Tensor:
        """``[N, D] -> [N, K]``."""
        logits: Tensor = self.net.head(f)  # type: ignore[operator]
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """The logits that are trained, ``[N, C, H, W] -> [N, K]`` float32."""
        return self.head(self.features(x))

    def predict(self, x: Tensor) -> Tensor:
        """The logits by which images are classified, ``[N, C, H, W] -> [N, K]``; `x` is normalised float."""
        return self.rule(self, self.features(x))


def _is_stateless(rule: Rule) -> bool:
    cells = getattr(rule, "__closure__", None) or ()
    held = [getattr(rule, "__self__", None), *(cell.cell_contents for cell in cells)]
    return inspect.isroutine(rule) and not any(isinstance(part, nn.Module | Tensor) for part in held)


def make_model(
    config: Train,
    split: Split,
    classes: int,
    shape: tuple[int, int, int],
    *,
    blank: bool = False,
    dtype: torch.dtype | None = None,
) -> tuple[Model, Algorithm]:
    """The model of a training at its start, in evaluation mode, and the algorithm that asked for its heads; on the CPU.

    Args:
        split: the run's own, whose labels are those of its labeled images.
        shape: (C, H, W) of the images.
        blank: without pretrained weights, for a state that is loaded afterwards; a body that does not learn has them.
        dtype: of autocast.

    Raises ValueError where net or algorithm cannot be made for this.
    """
    net = config.net.build(classes, shape, blank=blank)
    frozen = nets.freeze(net, config.net.train)
    info = Info(
        classes=classes,
        shape=shape,
        features=net.dim,  # type: ignore[arg-type]
        labeled_counts=torch.bincount(torch.from_numpy(split.targets), minlength=classes),
        unlabeled=len(split.unlabeled),
        steps=config.steps,
        batch=config.batch,
        unlabeled_batch=config.batch * config.uratio,
        coarse=dtype is not None or config.precision == "tf32",
        maps=nets.map_size(net, shape) if getattr(config.algorithm, "on_maps", False) else None,
        own_counts=torch.tensor(split.own_counts),
    )
    algorithm = config.algorithm.build(info)
    own = ", ".join(name for name, _ in algorithm.named_parameters())
    assert not own, f"an algorithm has no parameters, which nobody would average or save: let {own} be one of its heads"
    model = Model(net, algorithm.heads, algorithm.rule, dtype, frozen, config.net.freeze_bn).eval()
    with torch.no_grad():
        predicted = list(model.rule(model, torch.zeros(2, model.dim)).shape)
    assert predicted == [2, classes], f"the rule gives logits {predicted} for 2 images and {classes} classes"
    return model, algorithm


@torch.no_grad()
def logits_of(
    models: Sequence[Model],
    normalize: nn.Module,
    store: AnyStore | FeatureStore,
    rows: Tensor | None = None,
    *,
    even: bool = False,
    ask: Callable[[Model, Tensor], Tensor] = Model.predict,
) -> list[Tensor]:
    """Logits ``[n, K]`` float32 that each model predicts, in evaluation mode, for the images at `rows` (None: all).

    The images are gathered and normalised once for all models; nothing waits for the device, where the logits are.

    Args:
        store: of pixels, or of features, which need no normalisation.
        rows: int64 ``[n]``, n above 0, on the store's `rows_device`.
        even: fill up the last batch, so that compiled nets see one shape only.
        ask: ``(model, x [n, C, H, W]) -> [n, ...]``, what is wanted in place of the logits that it predicts.
    """
    rows = torch.arange(len(store), device=store.rows_device) if rows is None else rows
    n, (_, height, width) = len(rows), store.shape
    size = max(1, PIXELS_PER_BATCH // (height * width))
    if even:
        rows = torch.cat((rows, rows[-1:].expand(-n % size)))
    batches = torch.split(rows, size)
    modes = [model.training for model in models]
    out: list[list[Tensor]] = [[] for _ in models]
    for model in models:
        model.eval()
    for i, batch in enumerate(batches):
        x = store.take(batch)
        x = x if isinstance(store, FeatureStore) else normalize(x)
        store.expect(later.numpy() for later in islice(batches, i + 1, i + 1 + store.ahead))
        for model, logits in zip(models, out, strict=True):
            logits.append(ask(model, x).float())
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    return [torch.cat(logits)[:n] for logits in out]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained model ready to classify."""

    model: Model
    normalize: Normalize
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """(C, H, W) of the images that it was trained on."""
    step: int
    weights: str
    """"ema" or "raw"."""
    device: torch.device
    how: Decoding = PLAIN
    """How picture files are read and brought to `shape`."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Class by the name that it has in the data, where it was given a display name."""

    def logits(self, images: NDArray[np.uint8] | OnDemand) -> Tensor:
        """Logits ``[N, K]`` float32, on the CPU, of images ``[N, H, W, C]`` uint8; N may be 0.

        Raises ValueError where dtype, height, width or channels are not those of the training images.
        """
        return self._ask(images, Model.predict, len(self.classes))

    def features(self, images: NDArray[np.uint8] | OnDemand) -> Tensor:
        """Features ``[N, D]`` float32 of the net, on the CPU; images and errors as for `logits`."""
        return self._ask(images, Model.features, self.model.dim)

    def _ask(
        self, images: NDArray[np.uint8] | OnDemand, ask: Callable[[Model, Tensor], Tensor], columns: int
    ) -> Tensor:
        channels, height, width = self.shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"the model takes uint8 images [N, {height}, {width}, {channels}], "
                f"got {images.dtype} {list(images.shape)}"
            )
        if not len(images):
            return torch.empty(0, columns)
        kind = choose("auto", len(images), self.shape, self.device).kind
        (found,) = logits_of([self.model], self.normalize, make_store(images, self.device, kind), ask=ask)
        return found.cpu()


def load_predictor(
    run: Run, *, checkpoint: str = "last", weights: str = "ema", device: torch.device | str = "cpu"
) -> Predictor:
    """The model of a run, with its classes and its pixels' scale.

    checkpoint: "last", "best" or a step; weights: "ema" or "raw". Raises RunError when the run has not what is
    asked for, or when the checkpoint is damaged.
    """
    if weights not in ("ema", "raw"):
        raise RunError(f"--weights must be ema or raw, got {weights!r}")
    found = run.checkpoint(checkpoint)
    config, data = run.config, run.data
    found.meta()
    whole = run.whole() if (checkpoint, weights) == ("last", "ema") else None
    config = with_body(run, config) if whole is None else replace(config, net=config.net.whole())
    classes: Sequence[str] = data["classes"]
    channels, height, width = data["shape"]
    shape = (channels, height, width)
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays as it is
        model, _ = make_model(config, run.split, len(classes), shape, blank=True)
    check_body(run, model)
    state = found.weights(weights) if whole is None else whole
    what = f"the {weights} weights of checkpoint {found.path}" if whole is None else f"the weights of {run.path}"
    check_tensors(state, model.learned(), what)
    model.adopt(state)
    device = torch.device(device)
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    normalize = Normalize(shape, data["mean"], data["std"]).to(device)
    folders = dict(zip(data.get("folders", ()), classes, strict=False))
    how = decoding_of(config.data)
    return Predictor(model, normalize, tuple(classes), shape, found.step, weights, device, how, folders)


def decoding_of(data: Data) -> Decoding:
    """The settings by which picture files are read."""
    return Decoding(data.fit, data.bits, data.max_pixels)
