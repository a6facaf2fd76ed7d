"""Names of published protocols: what CADR's and RealMix's data names mean, in our words.

CADR (Hu et al., "On Non-Random Missing Labels in Semi-Supervised Learning", ICLR 2022; names: CADR-FixMatch,
libml/data.py) tells protocols apart by letters in the name. SIZE is the number of labels of the largest class
where the labels are long-tailed (LT, BT), and the number in all otherwise.

- ``LT_N``: long-tailed labels with lamda N, balanced unlabeled and test images, as the commands of the project's
  first commit (1fc232d) make them. The README of its head has one loop with lamda 50 for all three CIFAR-100
  names, which ``--data cifar100 --data.rule cadr --data.imbalance 50`` gives. Guessed: svhn_LT_10, svhn_LT_50 and
  miniImageNet_LT_50, whose lamda no command says. ``imagenet_LT_N`` is the first commit's name of mini-ImageNet.
- ``LT_N_RS``: the same labels, re-sampled (`rules.resample`).
- ``rand``: labels by a random prior of the seed.
- ``IT_N``: balanced labels, long-tailed unlabeled images; ``IT_RN``: the tail reversed (guessed: no command makes
  it). The test images are guessed to be balanced: no command makes another test set, and create_test.py, whose
  lamda is an integer, cannot reverse one.
- ``BT_N_M``: both tails: labels with lamda N, as in the first commit, unlabeled images with lamda M (guessed where
  M is not 50), balanced test images. The released create_split.py would balance these labels. ``BT_50`` is the
  first commit's name of ``BT_50_50``.

RealMix (Nair et al. 2019, https://arxiv.org/abs/1912.08766): ``cifar6_mismatchP``: labels are picked from all
ten classes and then only those of the six animals kept; P per cent of the classes of the unlabeled images are
not among them. The ten outputs stay, as released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Alias(NamedTuple):
    base: str
    """Name of the source."""
    options: Mapping[str, Any]
    """Settings of `fewlabels.Data` that the name stands for."""
    head: int | None = None
    """Labels of the largest class where the name gives no SIZE."""


ANIMALS = (2, 3, 4, 5, 6, 7)
"""Bird, cat, deer, dog, frog, horse of CIFAR-10."""


def _labels(base: str, head: int, *, resample: bool = False) -> Alias:
    options = {"rule": "cadr", "imbalance": float(head), **({"resample": True} if resample else {})}
    return Alias(base, options, head)


def _unlabeled(lamda: float, *, reverse: bool = False) -> Alias:
    tail = {"imbalance_unlabeled": float(lamda), **({"reverse": True} if reverse else {})}
    return Alias("cifar10", {"rule": "cadr", **tail})


def _both(head: int, unlabeled: float) -> Alias:
    return Alias("cifar10", {"rule": "cadr", "imbalance": float(head), "imbalance_unlabeled": float(unlabeled)}, head)


def _mismatch(*unlabeled: int) -> Alias:
    kept = {"keep_labeled": ANIMALS, "keep_unlabeled": unlabeled, "keep_test": ANIMALS}
    return Alias("cifar10", {"rule": "realmix", **kept})


ALIASES: dict[str, Alias] = {
    "cifar10_LT_20": _labels("cifar10", 20),
    "cifar10_LT_50": _labels("cifar10", 50),
    "cifar10_LT_100": _labels("cifar10", 100),
    "cifar10_LT_50_RS": _labels("cifar10", 50, resample=True),
    "cifar10_LT_100_RS": _labels("cifar10", 100, resample=True),
    "cifar10_IT_50": _unlabeled(50),
    "cifar10_IT_R20": _unlabeled(20, reverse=True),
    "cifar10_IT_R50": _unlabeled(50, reverse=True),
    "cifar10_IT_R100": _unlabeled(100, reverse=True),
    "cifar10_BT_50": _both(50, 50),
    "cifar10_BT_50_10": _both(50, 10),
    "cifar10_BT_50_20": _both(50, 20),
    "cifar10_BT_50_50": _both(50, 50),
    "cifar10_BT_50_100": _both(50, 100),
    "cifar100_LT_50": _labels("cifar100", 50),
    "cifar100_LT_100": _labels("cifar100", 100),
    "cifar100_LT_200": _labels("cifar100", 200),
    **{f"{name}_LT_{n}": _labels("mini_imagenet", n) for name in ("miniImageNet", "imagenet") for n in (50, 100, 200)},
    "stl10_LT_50": _labels("stl10", 50),
    "stl10_LT_100": _labels("stl10", 100),
    "svhn_LT_10": _labels("svhn", 10),
    "svhn_LT_50": _labels("svhn", 50),
    "svhn_LT_100": _labels("svhn", 100),
    "cifar100_rand": Alias("cifar100", {"rule": "cadr", "prior": "rand"}),
    "stl10_rand": Alias("stl10", {"rule": "cadr", "prior": "rand"}),
    "svhn_rand": Alias("svhn", {"rule": "cadr", "prior": "rand"}),
    "cifar6_mismatch0": _mismatch(4, 5, 6, 7),
    "cifar6_mismatch25": _mismatch(0, 5, 6, 7),
    "cifar6_mismatch50": _mismatch(0, 1, 6, 7),
    "cifar6_mismatch75": _mismatch(0, 1, 8, 7),
    "cifar6_mismatch100": _mismatch(0, 1, 8, 9),
}
