"""What a step trains on: the rows that it draws, and every image's own views, on the device."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels import augment, parallel
from fewlabels.augment import uniform
from fewlabels.augment.ctaugment import Probe
from fewlabels.augment.pixels import Normalize, Shape, upload
from fewlabels.augment.plan import Plan, run
from fewlabels.augment.views import Draw, View
from fewlabels.config import Train, algorithm_name
from fewlabels.data.gather import make_store, place
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.data.store import Store, draw_rows
from fewlabels.rng import Rng
from fewlabels.types import Batch, Views

Way = Literal["grouped", "uniform", "kernel"]
"""How views are made; the bits are the same. `grouped` by operation, which is the least work; `uniform`, whose calls
are the same whatever is drawn; one Triton `kernel` a view."""


class Feed:
    """The batches of a training, each a function of the seed and the step (and of a learning view's state).

    Args:
        source: the images; `split` says which are labeled.
        wanted: the views that the algorithm asks for.
        mean, std: per channel, in units of pixels scaled to [0, 1].
    """

    def __init__(
        self,
        config: Train,
        source: Source,
        split: Split,
        wanted: Views,
        *,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        assert config.shift is not None
        self.config, self.wanted, self.device = config, wanted, device
        self.rank, self.world = parallel.rank(), parallel.world()
        self.place = place(config.data.residency, source, device)
        self.store = make_store(source.images, device, self.place.kind)
        self.shape = self.store.shape
        self.labeled = torch.from_numpy(split.labeled).to(device)
        self.unlabeled = torch.from_numpy(split.unlabeled).to(device)
        self._host_rows = split.labeled, split.unlabeled
        self.labels = torch.from_numpy(source.labels).to(device)
        others = np.setdiff1d(split.unlabeled, split.labeled)
        self.truth_known = bool((source.labels[others] >= 0).any())
        """Whether an unlabeled image has a known class, as those of named sets have: the labeled ones tell nothing."""
        self.looks = augment.make_looks(
            self.shape,
            wanted,
            weak=config.weak,
            strong=config.strong,
            shift=config.shift,
            cutout=config.cutout,
            augment=config.augment,
            algorithm=algorithm_name(config.algorithm),
            policy="svhn" if source.name.startswith("svhn") else "cifar",
            stratified=config.stratified,
        )
        self.views = self.looks.views.to(device)
        self.learner = self.looks.learner()
        self.probe: tuple[Probe, Tensor] | None = None
        """What the learning view tried on the labeled images of the last batch, and these, normalised."""
        halves = any(cast(View, view).halves for view in self.views.values())
        self.normalize = Normalize(self.shape, mean, std, halves=halves).to(device)
        self.way = way_of(self.shape, device)

    def draw(self, step: int) -> list[NDArray[np.int64]]:
        """This rank's places in the labeled set, and in the unlabeled set if it is wanted, in step `step`."""
        config = self.config
        rng = Rng(config.seed, step, rank=self.rank, world=self.world)
        sets = [("labeled", len(self.labeled), config.batch)]
        if self.wanted.unlabeled:
            sets.append(("unlabeled", len(self.unlabeled), config.batch * config.uratio))
        drawn = [draw_rows(n, batch, step, config.seed, purpose) for purpose, n, batch in sets]
        return [rng.shard(places) for places in drawn]

    def batch(self, step: int) -> Batch:
        """The batch of step `step`."""
        config, looks = self.config, self.looks
        rng = Rng(config.seed, step, rank=self.rank, world=self.world, device=self.device)
        drawn = self.draw(step)
        places = [upload(part, self.device) for part in drawn]
        sets = (self.labeled, self.unlabeled)

        def taken(part: int) -> Images:
            """The images of a part, for which a store outside the device asks on the host."""
            host = torch.from_numpy(self._host_rows[part][drawn[part]]) if self.store.ahead else None
            return Images(self.store, sets[part][places[part]] if host is None else host)

        def look(images: Images, keys: tuple[str, ...], names: tuple[str, ...], purpose: str) -> tuple[Tensor, ...]:
            views = [cast(View, self.views[key]) for key in keys]
            purposes = [f"{purpose}/{i}/{name}" for i, name in enumerate(names)]
            drawn = [view.draw(rng, len(images), p) for view, p in zip(views, purposes, strict=True)]
            return tuple(self._seen(images, *one) for one in zip(views, drawn, strict=True))

        labeled = taken(0)
        x = look(labeled, looks.labeled, self.wanted.labeled, "labeled")
        if self.learner is not None:
            self.probe = self._probe(labeled, rng)
        u: tuple[Tensor, ...] = ()
        if self.wanted.unlabeled:
            u = look(taken(1), looks.unlabeled, self.wanted.unlabeled, "unlabeled")
        coming = range(step + 1, min(step + 1 + self.store.ahead, config.steps))
        self.store.expect(
            rows[part] for later in coming for rows, part in zip(self._host_rows, self.draw(later), strict=False)
        )
        return Batch(
            x=x,
            y=self.labels[self.labeled[places[0]]],
            u=u,
            index=places[1] if self.wanted.unlabeled else places[0].new_empty(0),
            progress=torch.full((), step / config.steps, dtype=torch.float32, device=self.device),
            rng=rng,
        )

    def _seen(self, images: Images, view: View, draw: Draw) -> Tensor:
        """One view of some images, normalised."""
        plan = view.plan(draw)
        if self.way == "grouped" or plan is None:
            return self.normalize(view(images.pixels, draw))  # type: ignore[no-any-return]
        return self._rendered(images, plan)

    def _rendered(self, images: Images, plan: Plan) -> Tensor:
        """A view by its plan, normalised, in the one or the other way of a GPU."""
        if self.way == "uniform":
            return self.normalize(run(images.pixels, plan, self.shape, uniform.apply))  # type: ignore[no-any-return]
        from fewlabels.augment import kernel

        return kernel.render(*images.resident, plan, self.normalize)

    def _probe(self, images: Images, rng: Rng) -> tuple[Probe, Tensor]:
        """What a learning view tries on the labeled images: a policy after their weak view."""
        assert self.learner is not None
        weak = cast(View, self.views[self.looks.probe])
        purpose = "labeled/0/weak" if self.looks.labeled[0] == self.looks.probe else "probe/0/weak"
        draw = weak.draw(rng, len(images), purpose)
        policy = self.learner.probe(rng, len(images), "probe")
        plan = weak.plan(draw)
        if self.way != "grouped" and plan is not None:
            return policy, self._rendered(images, self.learner.probe_plan(policy, plan))
        pixels = run(weak(images.pixels, draw), self.learner.probe_plan(policy), self.shape)
        return policy, self.normalize(pixels)


class Images:
    """Some images of a store, by their rows, which lie where the store wants them; read once, when they are needed."""

    def __init__(self, store: Any, rows: Tensor) -> None:
        self.store, self.rows = store, rows
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> Tensor:
        """As in `fewlabels.augment.pixels`."""
        if self._pixels is None:
            self._pixels = self.store.take(self.rows)
        return self._pixels

    @property
    def resident(self) -> tuple[Tensor, Tensor]:
        """Images on the device, and the rows of these among them."""
        if isinstance(self.store, Store):
            return self.store.data, self.rows
        return self.pixels, torch.arange(len(self), device=self.pixels.device)


def way_of(shape: Shape, device: torch.device) -> Way:
    """How the views of images of this shape are made on a device."""
    if device.type != "cuda":
        return "grouped"
    # older GPUs Triton does not know
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(device) < (7, 0):
        return "uniform"
    from fewlabels.augment import kernel

    return "kernel" if kernel.fits(shape) else "grouped"
