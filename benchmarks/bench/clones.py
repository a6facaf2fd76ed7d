"""Other projects' own code, imported from the user's clones: data sets, transforms, loaders, steps.

Nothing of theirs is in this package. They were written for older versions of torch, and read CIFAR-10 from the
disk; what they miss is put in their way while they are imported and run: `photos` for CIFAR-10, `next` of a
loader's iterator under its old name, torch's autocast for apex.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from bench import subjects

MANY = 10**9


class Settings(NamedTuple):
    """What all are measured with."""

    batch: int
    uratio: int
    net: str
    device: torch.device


class Peer(NamedTuple):
    """One clone."""

    name: str
    shipped: tuple[int, int]
    """Workers of the labeled and the unlabeled loader by default."""
    loaders: Callable[[int, int], tuple[DataLoader[Any], DataLoader[Any]]]
    unpack: Callable[[Any, Any], tuple[Tensor, ...]]
    """The tensors that go to the device, from a batch of each loader."""
    train: Callable[[Any, Any, bool], Callable[[], object]] | None
    """From two iterables of batches and whether to use autocast to a function that trains until they end; None where
    the project's own loop does not run here."""


class Enough(Exception):
    """The block is over; raised into a loop that knows no other end."""


class _Cifar:
    """Stands for torchvision's class, with photographs in place of the files."""

    def __init__(
        self, root: str, train: bool = True, transform: Any = None, target_transform: Any = None, **_: Any
    ) -> None:
        self.data = subjects.photos(10_000, 32)
        self.targets = (np.arange(len(self.data)) % subjects.CLASSES).tolist()
        self.transform, self.target_transform = transform, target_transform

    def __len__(self) -> int:
        return len(self.data)


@contextlib.contextmanager
def _at(path: Path, *stubs: str) -> Iterator[None]:
    """Imports from the clone first, under its own top-level names, which are forgotten afterwards.

    stubs: packages of the clone that are passed through without running what they import.
    """
    own = {p.stem for p in path.iterdir() if p.suffix == ".py" or p.is_dir()}
    before = {name: m for name, m in sys.modules.items() if name.partition(".")[0] in own}
    for name in before:
        del sys.modules[name]
    cifar = torchvision.datasets.CIFAR10
    sys.path.insert(0, str(path))
    torchvision.datasets.CIFAR10 = _Cifar
    for name in stubs:
        package = ModuleType(name)
        package.__path__ = [str(path.joinpath(*name.split(".")))]
        sys.modules[name] = package
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ModuleNotFoundError as error:
        raise ValueError(f"the clone {path} needs the package {error.name}, which is not installed") from None
    finally:
        sys.path.remove(str(path))
        torchvision.datasets.CIFAR10 = cifar
        for name in [n for n in sys.modules if n.partition(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(before)


def _clone(path: str, proof: str) -> Path:
    folder = Path(path).expanduser().resolve()
    if not (folder / proof).is_file():
        raise ValueError(f"{path} is not a clone of the project: it has no {proof}")
    return folder


def _net(settings: Settings, theirs: Callable[[], nn.Module]) -> nn.Module:
    net = subjects.TinyNet(subjects.CLASSES) if settings.net == "tiny" else theirs()
    return net.to(settings.device)


def _sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)


def _lowered(net: nn.Module, device: torch.device) -> nn.Module:
    """The net under autocast, as apex or the project itself would run it."""
    net.forward = torch.autocast(device.type, torch.bfloat16)(net.forward)
    return net


def kekmodel(path: str, settings: Settings) -> Peer:
    """kekmodel/FixMatch-pytorch: data, loop and average of its train.py."""
    folder = _clone(path, "dataset/cifar.py")
    args: Any = SimpleNamespace(
        num_labeled=250, num_classes=10, expand_labels=False, batch_size=settings.batch, eval_step=MANY,
        device=settings.device, mu=settings.uratio, world_size=1, start_epoch=0, epochs=1, no_progress=True,
        local_rank=-1, T=1, threshold=0.95, lambda_u=1, use_ema=True, amp=False,
    )  # fmt: skip
    with _at(folder):
        module: Any = importlib.import_module("train")
        average: Any = importlib.import_module("models.ema")
        wide: Any = importlib.import_module("models.wideresnet")
        expand = SimpleNamespace(**{**vars(args), "eval_step": 1024})
        labeled, unlabeled, _ = module.DATASET_GETTERS["cifar10"](expand, ".")

    def loaders(first: int, second: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
        return (
            DataLoader(labeled, args.batch_size, sampler=RandomSampler(labeled), num_workers=first, drop_last=True),
            DataLoader(
                unlabeled,
                args.batch_size * args.mu,
                sampler=RandomSampler(unlabeled),
                num_workers=second,
                drop_last=True,
            ),
        )

    def train(x: Any, u: Any, low: bool) -> Callable[[], object]:
        net = _net(settings, lambda: wide.build_wideresnet(28, 2, 0, 10))
        optimizer = _sgd(net)
        schedule = module.get_cosine_schedule_with_warmup(optimizer, 0, 2**20)
        ema = average.ModelEMA(args, net, 0.999)
        if low:
            _lowered(net, settings.device)

        def run() -> None:
            with contextlib.suppress(Enough):
                module.train(args, _Old(x), _Old(u), None, net, optimizer, ema, schedule)

        return run

    return Peer("kekmodel", (4, 4), loaders, lambda x, u: (x[0], *u[0]), train)


class _Old:
    """An iterator with `next` under its old name too; at its end it says so to a loop that would begin anew."""

    def __init__(self, batches: Any) -> None:
        self.it = iter(batches)

    def __iter__(self) -> _Old:
        return self

    def __next__(self) -> Any:
        return next(self.it)

    def next(self) -> Any:
        try:
            return next(self.it)
        except StopIteration:
            raise Enough from None


def leedoyup(path: str, settings: Settings) -> Peer:
    """LeeDoYup/FixMatch-pytorch: data, loop and average; the loop needs a GPU."""
    folder = _clone(path, "datasets/ssl_dataset.py")
    with _at(folder):
        data: Any = importlib.import_module("datasets.ssl_dataset")
        tools: Any = importlib.import_module("datasets.data_utils")
        labeled, unlabeled = data.SSL_Dataset("cifar10", True, 10, ".").get_ssl_dset(250)
        cuda = settings.device.type == "cuda"
        method: Any = importlib.import_module("models.fixmatch.fixmatch") if cuda else None
        wide: Any = importlib.import_module("models.nets.wrn")

    def loaders(first: int, second: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
        sets = ((labeled, settings.batch, first), (unlabeled, settings.batch * settings.uratio, second))
        made = [
            tools.get_data_loader(d, n, data_sampler="RandomSampler", num_iters=100_000, num_workers=w, pin_memory=cuda)
            for d, n, w in sets
        ]
        return made[0], made[1]

    def train(x: Any, u: Any, low: bool) -> Callable[[], object]:
        def build(num_classes: int) -> nn.Module:
            return _net(settings, lambda: wide.WideResNet(28, num_classes, 2, 0.001, 0.1))

        quiet = SimpleNamespace(info=lambda *_: None)
        model = method.FixMatch(build, 10, 0.999, 1.0, 0.95, 1.0, it=1, num_eval_iter=MANY, logger=quiet)
        optimizer = _sgd(model.train_model)
        model.set_optimizer(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))
        model.train_model = _Inside(model.train_model)
        model.evaluate = lambda **_: {}
        model.set_data_loader({"train_lb": x, "train_ulb": u})
        args = SimpleNamespace(
            amp=low, gpu=settings.device.index, num_train_iter=MANY, hard_label=True, multiprocessing_distributed=False
        )
        return lambda: model.train(args)

    return Peer("LeeDoYup", (1, 4), loaders, lambda x, u: (x[0], u[0], u[1]), train if cuda else None)


class _Inside(nn.Module):
    """A net where the project expects the one that DataParallel wraps."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)


def usb(path: str, settings: Settings) -> Peer:
    """microsoft/Semi-supervised-learning (USB): data sets, transforms and sampler; its loop is not run."""
    folder = _clone(path, "semilearn/datasets/cv_datasets/cifar.py")
    with _at(folder, "semilearn", "semilearn.datasets", "semilearn.datasets.cv_datasets"):
        cifar: Any = importlib.import_module("semilearn.datasets.cv_datasets.cifar")
        sampler: Any = importlib.import_module("semilearn.datasets.samplers.sampler")

        def split(args: Any, images: Any, labels: Any, *_: Any, **__: Any) -> Any:
            """Its own one keeps files in the clone."""
            return images[:250], np.array(labels)[:250], images, np.array(labels)

        cifar.split_ssl_data = split
        options = SimpleNamespace(img_size=32, crop_ratio=0.875, ulb_num_labels=None, lb_imb_ratio=1, ulb_imb_ratio=1)
        labeled, unlabeled, _ = cifar.get_cifar(options, "fixmatch", "cifar10", 250, 10, ".")

    def loader(data: Any, size: int, workers: int) -> DataLoader[Any]:
        drawn = sampler.DistributedSampler(data, num_replicas=1, rank=0, num_samples=size * 10_000)
        return DataLoader(data, size, sampler=drawn, num_workers=workers, drop_last=True)

    def loaders(first: int, second: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
        size = settings.batch
        return loader(labeled, size, first), loader(unlabeled, size * settings.uratio, second)

    return Peer("USB", (1, 2), loaders, lambda x, u: (x["x_lb"], u["x_ulb_w"], u["x_ulb_s"]), None)
