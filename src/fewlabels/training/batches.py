"""Batches of a training: the drawn rows, and every image's own views, on the device."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable
from functools import partial
from textwrap import shorten
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels import augment
from fewlabels.augment.copies import CopyMaker
from fewlabels.augment.ctaugment import LATE, Probe
from fewlabels.augment.pixels import Normalize, Shape, upload
from fewlabels.augment.plan import Plan, run
from fewlabels.augment.views import Draw, View
from fewlabels.config.settings import Train, algorithm_name
from fewlabels.data import crops
from fewlabels.data.crops import Crops
from fewlabels.data.features import FeatureStore
from fewlabels.data.gather import Wanted, make_store, place
from fewlabels.data.source import OnDemand, Source
from fewlabels.data.split import Split
from fewlabels.data.store import Store, draw_rows
from fewlabels.runtime import parallel
from fewlabels.runtime.rng import Rng
from fewlabels.training import curriculum
from fewlabels.types import Batch, Tokens, Views

Way = Literal["grouped", "kernel"]
"""Two ways to make views, with the same bits: `grouped` by operation, or one Triton `kernel` a view."""


PROBE = "probe"
"""Purpose of the random numbers of a learning view's probes."""


class BatchLoader:
    """The batches of a training, each a function of the seed and the step (and of a learning view's state).

    Args:
        source: the images; `split` says which are labeled, and what they are trained on as.
        wanted: the views that the algorithm asks for.
        mean, std: per channel, in units of pixels scaled to [0, 1].
        tokens: what those of `Train.augment` mean to the algorithm.
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
        tokens: Tokens | None = None,
    ) -> None:
        assert config.shift is not None
        self.config, self.wanted, self.device = config, wanted, device
        self.rank, self.world, self.parts = parallel.rank(), parallel.world(), config.accumulate
        if config.data.crop != "none" and not (isinstance(source.images, OnDemand) and source.images.crops):
            raise ValueError(
                f"Data.crop {config.data.crop} is for pictures that are read from their files, and {source.name} is "
                "read whole"
            )
        self._on_demand = [x for x in (source.images, source.test_images) if isinstance(x, OnDemand)]
        for images in self._on_demand[:1]:
            images.reserve(split.validation)
        self.place = place(config.data.residency, source, device)
        self.store = make_store(source.images, device, self.place.kind)
        self.shape = self.store.shape
        self.labeled = torch.from_numpy(split.labeled).to(device)
        self.unlabeled = torch.from_numpy(split.unlabeled).to(device)
        self._host_rows = split.labeled, split.unlabeled
        self.targets = torch.from_numpy(split.targets).to(device)
        """Labels of `labeled`, which are trained on: int64."""
        self.truth = torch.from_numpy(source.labels).to(device)
        """Labels of every image as the source knows them, int64, -1 for unknown ones; for the log only."""
        others = np.setdiff1d(split.unlabeled, split.labeled)
        self.truth_known = bool((source.labels[others] >= 0).any())
        """Whether an unlabeled image has a known class, as those of named sets have: the labeled ones tell nothing."""
        self.assigned = augment.make_views(
            self.shape,
            wanted,
            weak=config.weak,
            strong=config.strong,
            shift=config.shift,
            cutout=config.cutout,
            augment=config.augment,
            algorithm=algorithm_name(config.algorithm),
            meaning=tokens,
            policy="svhn" if source.name.startswith("svhn") else "cifar",
            stratified=config.stratified,
        )
        self.views = self.assigned.views.to(device)
        self.copies = CopyMaker(self.shape, *wanted.copies) if wanted.copies is not None else None
        """Makes what the unlabeled views are views of, if not of the images themselves."""
        self.learner = self.assigned.learner()
        self.probe: tuple[Probe, Tensor] | None = None
        """What the learning view tried on the labeled images of the last batch, and these, normalised."""
        self._copied: list[torch.cuda.Event | None] = [None] * LATE
        if self.learner is not None:
            self.learner.listen(config.batch, device)
        halves = any(cast(View, view).halves for view in self.views.values())
        self.normalize = Normalize(self.shape, mean, std, halves=halves).to(device)
        self.way = way_of(self.shape, device)
        self.features: FeatureStore | None = None
        """Features of the images, in whose place they are handed out."""
        self.notes: list[str] = []
        """Sentences that the user should know before the training."""
        if self.way == "kernel":
            self._try_kernel()

    def _try_kernel(self) -> None:
        """Build the kernel for each view; where that fails, make the views in the other way and say why.

        Triton compiles at run time, and needs a C compiler and a folder to write to.
        """
        start, rng = time.perf_counter(), Rng(self.config.seed, 0, device=self.device)
        images = Images(self.store, torch.zeros(1, dtype=torch.int64, device=self.store.rows_device))
        try:
            for view in cast(Iterable[View], self.views.values()):
                if (plan := view.plan(view.draw(rng, 1, "trial"))) is not None:
                    self._rendered(images, plan)
            if self.learner is not None:
                self._probe(images, rng)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever Triton, the compiler or the system has to say
            self.way = "grouped"
            self.notes.append(
                "the views are made without the Triton kernel, which is slower and gives the same bits: it cannot be "
                f"built here ({shorten(' '.join(str(error).split()) or type(error).__name__, 120)})"
            )
        else:
            seconds = time.perf_counter() - start
            if seconds > 3:
                self.notes.append(f"the kernel of the views was built in {seconds:.0f} s")

    @property
    def fixed(self) -> bool:
        """Whether every view that a batch has leaves the images as they are."""
        keys = {*self.assigned.labeled, *self.assigned.unlabeled}
        return (
            self.learner is None
            and self.config.data.crop == "none"
            and all(cast(View, self.views[key]).fixed for key in keys)
        )

    def _rng(self, step: int, turn: int | None, device: torch.device | str = "cpu") -> Rng:
        """The random numbers of this rank in a step: for one turn of it, which has a share of the batch as a rank has;
        None: for all of them."""
        if turn is None:
            return Rng(self.config.seed, step, rank=self.rank, world=self.world, device=device)
        rank, world = self.rank * self.parts + turn, self.world * self.parts
        return Rng(self.config.seed, step, rank=rank, world=world, device=device)

    def draw(self, step: int, turn: int | None = None) -> list[NDArray[np.int64]]:
        """This rank's places in the labeled set, and in the unlabeled set if it is wanted, in step `step`.

        turn: as for `batch`; None: of the whole step.
        """
        config = self.config
        rng = self._rng(step, turn)
        sets = [("labeled", len(self.labeled), config.batch)]
        if self.wanted.unlabeled:
            sets.append(("unlabeled", len(self.unlabeled), config.batch * config.uratio))
        drawn = [draw_rows(n, batch, step, config.seed, purpose) for purpose, n, batch in sets]
        return [rng.shard(places[:size]) for places, size in zip(drawn, self._sizes(step), strict=False)]

    def _sizes(self, step: int) -> tuple[int, int]:
        """Labeled and unlabeled images of step `step`, of all ranks."""
        batch = self.config.batch
        return batch, batch * curriculum.uratio(self.config, step)

    def crops(self, step: int, part: int, turn: int | None = None) -> Crops | None:
        """What decides the crops of this rank's labeled (part 0) or unlabeled (1) images in step `step`, if there are
        crops; `turn` as for `draw`."""
        config = self.config
        if config.data.crop == "none":
            return None
        purpose, size = ("labeled", "unlabeled")[part], self._sizes(step)[part]
        rng = self._rng(step, turn)
        return rng.shard(crops.draw(rng.generator(f"{purpose}/crop"), size, flip=config.data.crop == "area-flip"))

    def wanted_rows(self, step: int, turn: int | None = None) -> list[Wanted]:
        """The images of each part in a turn of step `step`, as a store is told to expect them."""
        rows = [own[places] for own, places in zip(self._host_rows, self.draw(step, turn), strict=False)]
        numbers = [self.crops(step, part, turn) for part in range(len(rows))]
        return [r if n is None else (r, n) for r, n in zip(rows, numbers, strict=True)]

    def batch(self, step: int, turn: int = 0) -> Batch:
        """What this rank has of step `step` in a turn, of which there are `Train.accumulate`."""
        config, assigned = self.config, self.assigned
        rng = self._rng(step, turn, self.device)
        drawn = self.draw(step, turn)
        places = [upload(part, self.device) for part in drawn]
        sets = (self.labeled, self.unlabeled)

        def taken(part: int) -> Images:
            """The images of a part, for which a store outside the device asks on the host."""
            host = torch.from_numpy(self._host_rows[part][drawn[part]]) if self.store.ahead else None
            return Images(self.store, sets[part][places[part]] if host is None else host, self.crops(step, part, turn))

        def look(images: Images, keys: tuple[str, ...], names: tuple[str, ...], purpose: str) -> tuple[Tensor, ...]:
            if self.features is not None:
                return (self.features.take(images.rows.to(self.device)),) * len(names)
            views = [cast(View, self.views[key]) for key in keys]
            purposes = [f"{purpose}/{i}/{name}" for i, name in enumerate(names)]
            drawn = [view.draw(rng, len(images), p) for view, p in zip(views, purposes, strict=True)]
            seen = (self._seen(images, *one) for one in zip(views, drawn, strict=True))
            return tuple(map(curriculum.shrunk, seen)) if curriculum.halved(config, step) else tuple(seen)

        labeled = taken(0)
        x = look(labeled, assigned.labeled, self.wanted.labeled, "labeled")
        if self.learner is not None:
            policy, probed = self._probe(labeled, rng)
            self.probe = policy, curriculum.shrunk(probed) if curriculum.halved(config, step) else probed
        u: tuple[Tensor, ...] = ()
        if self.wanted.unlabeled:
            images = taken(1)
            if self.copies is not None:
                copy = self.copies.draw(rng, self._host_rows[1][drawn[1]])
                images.change = partial(self.copies.make, draw=copy)
            u = look(images, assigned.unlabeled, self.wanted.unlabeled, "unlabeled")
        ahead = 0 if self.features is not None else self.store.ahead
        now, end = step * self.parts + turn + 1, config.steps * self.parts
        coming = [divmod(later, self.parts) for later in range(now, min(now + ahead, end))]
        self.store.expect(wanted for later in coming for wanted in self.wanted_rows(*later))
        return Batch(
            x=x,
            y=self.targets[places[0]],
            u=u,
            index=places[1] if self.wanted.unlabeled else places[0].new_empty(0),
            progress=torch.full((), step / config.steps, dtype=torch.float32, device=self.device),
            rng=Rng(config.seed, step, rank=self.rank, world=self.world, device=self.device, turn=turn),
            labeled_index=places[0],
        )

    def news(self) -> list[str]:
        """Sentences on what was found out about the images since the last call."""
        return [text for images in self._on_demand for text in images.news()]

    def labeled_weak(self, step: int) -> Tensor:
        """The labeled images of step `step` in their weak view alone, normalised, ``[B, C, H, W]``."""
        rng = self._rng(step, None, self.device)
        rows = torch.from_numpy(self._host_rows[0][self.draw(step)[0]]).to(self.store.rows_device)
        weak = cast(View, self.views[self.assigned.probe])
        return self._seen(
            Images(self.store, rows, self.crops(step, 0)), weak, weak.draw(rng, len(rows), "labeled/0/weak")
        )

    def learn(self, step: int, proximity: Tensor) -> None:
        """Take note of how the probes of `step` went, and let the learning view hear of those `LATE` steps earlier.

        Args:
            proximity: float32 ``[rows]``, of this rank's labeled images, see `CTAugment.learn`.
        """
        assert self.learner is not None
        slot = step % LATE
        heard = self.learner.heard[slot]
        self._arrived(slot)
        if not heard.isnan().any():  # else there is nothing from so early, or the net has diverged
            rng = self._rng(step - LATE, None)
            probe = self.learner.probe(rng, len(proximity), PROBE)
            self.learner.learn(probe.everyone, heard)
        heard.copy_(parallel.gather(proximity), non_blocking=True)
        if self.device.type == "cuda":
            event = self._copied[slot] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()

    def _arrived(self, slot: int) -> None:
        """Wait until the host has what was noted in this slot, which after some steps it has."""
        if (event := self._copied[slot]) is not None:
            event.synchronize()

    def state(self) -> dict[str, Tensor]:
        """State of the views, with all that they have heard of."""
        for slot in range(LATE):
            self._arrived(slot)
        return self.views.state_dict()

    def _seen(self, images: Images, view: View, draw: Draw) -> Tensor:
        """One view of some images, normalised."""
        plan = view.plan(draw)
        if self.way == "grouped" or plan is None:
            return self.normalize(view(images.pixels, draw))  # type: ignore[no-any-return]
        return self._rendered(images, plan)

    def _rendered(self, images: Images, plan: Plan) -> Tensor:
        """A view by its plan, normalised, by the kernel."""
        from fewlabels.augment import kernel

        return kernel.render(*images.resident, plan, self.normalize)

    def _probe(self, images: Images, rng: Rng) -> tuple[Probe, Tensor]:
        """What a learning view tries on the labeled images: a policy after their weak view."""
        assert self.learner is not None
        weak = cast(View, self.views[self.assigned.probe])
        purpose = "labeled/0/weak" if self.assigned.labeled[0] == self.assigned.probe else "probe/0/weak"
        draw = weak.draw(rng, len(images), purpose)
        policy = self.learner.probe(rng, len(images), PROBE)
        plan = weak.plan(draw)
        if self.way != "grouped" and plan is not None:
            return policy, self._rendered(images, self.learner.probe_plan(policy, plan))
        pixels = run(weak(images.pixels, draw), self.learner.probe_plan(policy), self.shape)
        return policy, self.normalize(pixels)


class Images:
    """Some images of a store, by their rows, which lie where the store wants them, or random crops of them; read once,
    when they are needed."""

    def __init__(self, store: Any, rows: Tensor, crops: Crops | None = None) -> None:
        self.store, self.rows, self.crops = store, rows, crops
        self.change: Callable[[Tensor], Tensor] | None = None
        """What is done to the pixels before any view."""
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> Tensor:
        """As in `fewlabels.augment.pixels`."""
        if self._pixels is None:
            pixels = self.store.take(self.rows) if self.crops is None else self.store.take(self.rows, self.crops)
            self._pixels = pixels if self.change is None else self.change(pixels)
        return self._pixels

    @property
    def resident(self) -> tuple[Tensor, Tensor]:
        """Images on the device, and the rows of these among them."""
        if isinstance(self.store, Store) and self.change is None:
            return self.store.data, self.rows
        return self.pixels, torch.arange(len(self), device=self.pixels.device)


def way_of(shape: Shape, device: torch.device) -> Way:
    """The way in which views of images of this shape are made on a device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return "grouped"
    capability = torch.cuda.get_device_capability(device)
    if capability < (7, 0):  # which Triton does not know
        return "grouped"
    from fewlabels.augment import kernel

    return "kernel" if kernel.fits(shape, capability) else "grouped"
