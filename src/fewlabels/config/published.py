# ruff: noqa: E501  (rows of a table)
"""What published projects trained with, and the recipe of the speedrun, by the name of the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fewlabels.config.settings import Optim
from fewlabels.config.usual import ADAM, Settings, settings
from fewlabels.data.names import parse

F = "google-research/fixmatch"
C = "JoyHuYY1412/CADR-FixMatch"
K = "kekmodel/FixMatch-pytorch"
D = "LeeDoYup/FixMatch-pytorch"
R = "uizard-technologies/realmix"
V = "OSU-MLB/SSL-Foundation-Models"
T = "TorchSSL/TorchSSL"
U = "microsoft/Semi-supervised-learning"


class Recipe(NamedTuple):
    """The training of a published project: `changes` on top of `recipe(algorithm, data)`, a whole."""

    algorithm: str
    data: str
    """A data name; the recipe is the same for other images."""
    changes: Settings
    source: str


TF: Settings = {"data.normalize": "minus-one-one", "ema.when": "before"}
"""Pixels and averaging of F, C and R; their nets have -tf in the name."""
CTA: Settings = {"strong": "cta"}
CTA_EVERYWHERE: Settings = {"strong": "cta", "cutout": False, "algorithm.labeled_view": "strong"}
RA: Settings = {"strong": "rand:google"}
LARGE: Settings = {"net.name": "wrn-28-2-tf", "net.width": 135}
BALANCED: Settings = {"data.rule": "balanced"}
LEEDOYUP: Settings = {**BALANCED, "seed": 0, "weak": "ms:zero", "eval_every": 10000}
LEEDOYUP_RA: Settings = {**LEEDOYUP, "strong": "rand:leedoyup"}
SGD: Settings = {f"optim.{name}": getattr(Optim(), name) for name in ("name", "lr", "schedule")}
REALMIX: Settings = {**ADAM, "data.rule": "realmix"}
COPIES: Settings = {**REALMIX, "algorithm.copy_kind": "cutout", "algorithm.copies": 50}
ANNEALED: Settings = {**COPIES, "algorithm.tsa": "linear"}
NET: Settings = {"net.name": "wrn-28-2-tf"}
FIVE: Settings = {**NET, "net.stages": 5}  # as many as --scales=0 makes of 96 pixels
MASKED: Settings = {**COPIES, "algorithm.percent_mask": 0.1}  # no share is published

VPET: Settings = {
    "net.name": "timm:vit_small_patch14_dinov2.lvd142m",
    "net.pretrained": True,
    "net.train": "lora",
    "data.image_size": 224,
    "batch": 32,
    "uratio": 1,
    "steps": 3420,
    "ema.decay": 0.0,
    "ema.warmup": False,
    "net.bn_momentum": None,
    "optim.name": "adamw",
    "optim.lr": 1e-4,
    "optim.weight_decay": 5e-4,
    "optim.warmup": 86,
}
"""30 passes over the unlabeled images of its smallest set, of which 2.5 % are warm-up; of its nets the small one."""

CLASSIC: Settings = {"strong": "rand:leedoyup", "eval_every": 5000}
"""Views of T and U: three operations of uniform strength, each applied, then a cutout."""
USB: Settings = {**CLASSIC, "data.rule": "usb"}
SMALLER: Settings = {"net.name": "wrn-28-2"}  # U's net for CIFAR-100; T and the papers have wrn-28-8

DASH: Settings = {
    "algorithm.variant": "usb",
    "algorithm.lambda_u": 1.0,
    "algorithm.wait_epochs": 2,
    "algorithm.drop_epochs": 10,
}
COMATCH: Settings = {
    "algorithm.activation": "relu",
    "algorithm.alignment": "usb",
    "algorithm.epass": True,
    "algorithm.start": 1024,
}
"""U's own of these two methods, whatever the net."""

VIT: Settings = {
    "data.rule": "usb",
    "strong": "rand:leedoyup",
    "net.drop_path": 0.2,
    "optim.name": "adamw",
    "optim.weight_decay": 5e-4,
    "optim.schedule": "cosine",
    "optim.warmup": 5120,
    "ema.decay": 0.0,
    "steps": 204_800,
    "batch": 8,
    "uratio": 1,
    "eval_every": 2048,
    "save_every": 2048,
}
"""U's trainings of learned ViTs, config/usb_cv."""
VITS: Mapping[str, Settings] = {
    "cifar100.1@200": {
        "net.name": "timm:vit_small_patch16_224",
        "net.patch": 2,
        "net.pretrained": "vit_small_patch2_32_mlp_im_1k_32.pth",
        "optim.lr": 5e-4,
        "optim.layer_decay": 0.5,
    },
    "stl10.1@40": {
        "net.name": "timm:vit_base_patch16_224",
        "net.pretrained": "mae_pretrain_vit_base.pth",
        "optim.lr": 1e-4,
        "optim.layer_decay": 0.65,
    },
}
"""Their nets, whose weights are files of U's releases."""
PLAIN_VIT: Settings = {"optim.lr": 5e-5, "optim.layer_decay": 1.0}  # of the files that came later
AVERAGED: Settings = {"ema.decay": 0.999, "algorithm.epass": True}
ON_VIT: Mapping[str, Settings] = {
    "supervised": {"algorithm.smoothing": 0.0},
    "uda": {"algorithm.tau": 0.8, "algorithm.temperature": 0.4},
    "fixmatch": {},
    "flexmatch": {},
    "freematch": {"algorithm.w_fairness": 0.001},
    "softmatch": {"algorithm.statistics": "aligned"},
    "adamatch": {},
    "dash": DASH,
    "comatch": {**COMATCH, **AVERAGED, "algorithm.queue_batches": 32},
    "simmatch": {**AVERAGED, "algorithm.bank_norm": "usb"},
    "crmatch": {},
    "defixmatch": {"algorithm.temperature": 1.0},
    "refixmatch": PLAIN_VIT,
    "sequencematch": PLAIN_VIT,
}
"""What a method has other than FixMatch there."""
ON_VIT_AND_DATA: Mapping[tuple[str, str], Settings] = {
    ("flexmatch", "cifar100"): {"optim.warmup": 0},
    ("comatch", "stl10"): {"algorithm.lambda_c": 5.0},
}

IMAGENET: Settings = {
    "data.normalize": "minus-one-one",
    "data.image_size": 224,
    "data.fit": "inner",
    "data.crop": "area-flip",
    "net.name": "resnet50",
    "optim.name": "sgd",
    "optim.weight_decay": 0.0006,  # twice theirs, whose penalty has no factor 1/2
    "optim.decay_bias": True,
    "optim.schedule": "stairs",
    "ema.buffers": "averaged",
    "eval_every": 1000,
    "save_every": 1000,
}
"""F's imagenet/training.py. Its rate is 0.1 for 256 labeled images in a step, and in proportion for others."""

IMAGENET_IMAGES = 1_281_167


def _imagenet(labels: int, epochs: int, warmup: int, decay: int, batch: int) -> Settings:
    """Steps, rate and stairs of F's ImageNet trainings, which count epochs of the labeled images."""
    return {
        "batch": batch,
        "steps": -(-epochs * labels // batch),
        "optim.lr": 0.1 * batch / 256,
        "optim.warmup": -(-warmup * labels // batch),
        "optim.stairs": tuple(epoch / epochs for epoch in range(decay, epochs, decay)),
    }


FAST: Settings = {
    "net.name": "fast-24",
    "algorithm.bn": "separate-weak",
    "strong": "rand:kekmodel",
    "optim.lr": 0.05,
    "optim.weight_decay": 0.001,
    "optim.schedule": "linear",
    "optim.warmup": 50,
    "ema.decay": 0.99,
    "ema.warmup": True,
    "ema.buffers": "averaged",
    "curriculum.half_size": 0.7,
    "curriculum.uratio": 2,
    "steps": 20_000,
    "batch": 32,
}
"""For small pictures, and an hour of two cores; it is no project's."""

TWO = ("cifar10.3@250-1", "svhn.3@250-1")
FOUR = ("cifar10.3@250-1", "cifar100.3@2500-1", "svhn.3@250-1", "stl10.3@1000-1")
EVERY_LABEL = ("cifar10-1", "svhn-1", "svhn_noextra-1")
TAILS = ("cifar10_LT_50.1@50-1", "cifar100_LT_100.1@100-1", "stl10_LT_50.1@50-1", "miniImageNet_LT_100.1@100-1")
PUBLISHED_BY_T = ("cifar10.1@40", "cifar100.1@400", "stl10.1@40", "svhn.1@40")
PUBLISHED_BY_U = ("cifar10.1@40", "svhn.1@40")
VALID = ("cifar10.3@250-5000", "svhn.3@250-5000")
OTHER_CLASSES = (0, 25, 50, 75, 100)
"""Per cent of the classes of the unlabeled images that are none of the labels."""

# name, to which the data set is added; algorithm; data; changes; project and file
# fmt: off
TABLE: tuple[tuple[str, str, tuple[str, ...], Settings, str, str], ...] = (
    ("google-supervised", "supervised", EVERY_LABEL, {}, F, "fully_supervised/fs_baseline.py"),
    ("google-supervised", "supervised", ("cifar100-1",), {"net.name": "wrn-28-2-tf"}, F, "fully_supervised/runs/all.sh"),
    ("google-supervised-mixup", "supervised-mixup", EVERY_LABEL, {}, F, "fully_supervised/fs_mixup.py"),
    ("google-supervised-mixup-26m", "supervised-mixup", ("cifar10-1", "cifar100-1"), LARGE, F, "fully_supervised/runs/all.sh"),
    ("google-pseudo-label", "pseudo-label", FOUR, {"algorithm.broadcast": True}, F, "pseudo_label.py"),
    ("google-pi-model", "pi-model", FOUR, {}, F, "pi_model.py"),
    ("google-mean-teacher", "mean-teacher", FOUR, {}, F, "mean_teacher.py"),
    ("google-vat", "vat", TWO, {"algorithm.eps": 6.0}, F, "vat.py"),
    ("google-ict", "ict", TWO, {}, F, "ict.py"),
    ("google-mixup", "mixup", TWO, {}, F, "mixup.py"),
    ("google-mixmatch", "mixmatch", FOUR, {}, F, "mixmatch.py"),
    # the cta scripts' lr 0.002 and wd 0.02 are left over from Adam: F issue 2
    ("google-mixmatch-cta", "mixmatch", TWO, {**CTA_EVERYWHERE, "algorithm.beta": 0.75, "algorithm.second_view": "strong"}, F, "cta/cta_mixmatch.py"),
    ("google-remixmatch-weak", "remixmatch", TWO, {"strong": "none"}, F, "remixmatch_no_cta.py"),
    ("google-remixmatch", "remixmatch", FOUR, {**CTA_EVERYWHERE, "algorithm.redux": "1st"}, F, "cta/cta_remixmatch.py"),
    ("google-uda", "uda", FOUR, RA, F, "uda.py"),
    ("google-fixmatch", "fixmatch", FOUR, CTA, F, "fixmatch.py"),
    ("google-fixmatch-ra", "fixmatch", FOUR, RA, F, "ablation/ab_fixmatch_ra.py"),
    ("cadr-fixmatch", "fixmatch", TAILS, CTA, C, "run.sh"),
    ("cadr", "cadr", TAILS, CTA, C, "run.sh"),
    ("kekmodel-fixmatch", "fixmatch", ("cifar10.5@4000", "cifar100.5@10000"), {**BALANCED, "seed": 5, "strong": "rand:kekmodel"}, K, "README.md"),
    ("leedoyup-fixmatch", "fixmatch", ("cifar10.0@4000", "cifar100.0@10000"), LEEDOYUP_RA, D, "README.md"),
    ("leedoyup-sup-consistency", "fixmatch", ("cifar10.0", "cifar100.0"), LEEDOYUP_RA, D, "README.md"),
    ("leedoyup-sup-only", "supervised", ("cifar10.0",), {**LEEDOYUP, **SGD, "optim.weight_decay": 0.0005, "algorithm.smoothing": 0.0}, D, "README.md"),
    ("leedoyup-sup-only", "supervised", ("cifar100.0",), {**LEEDOYUP, **SGD, "optim.weight_decay": 0.001, "algorithm.smoothing": 0.0}, D, "README.md"),
    ("realmix-supervised", "supervised", ("cifar10-5000", "svhn-5000"), {"optim.weight_decay": 0.02, "algorithm.smoothing": 0.001}, R, "README.md"),
    ("realmix-supervised-mixup", "supervised-mixup", ("cifar10-5000", "svhn-5000"), {"optim.weight_decay": 0.02}, R, "README.md"),
    ("realmix-pseudo-label", "pseudo-label", VALID, {**REALMIX, "algorithm.broadcast": True}, R, "pseudo_label.py"),
    ("realmix-pi-model", "pi-model", VALID, REALMIX, R, "pi_model.py"),
    ("realmix-mean-teacher", "mean-teacher", VALID, {**REALMIX, "optim.weight_decay": 0.2}, R, "mean_teacher.py"),
    ("realmix-vat", "vat", VALID, {**REALMIX, "algorithm.eps": 6.0}, R, "vat.py"),
    ("realmix-ict", "ict", VALID, REALMIX, R, "ict.py"),
    ("realmix-mixup", "mixup", VALID, REALMIX, R, "mixup.py"),
    ("realmix-mixmatch", "mixmatch", VALID, REALMIX, R, "mixmatch.py"),
    ("realmix", "realmix", (*VALID, "svhn_noextra.3@250-5000"), ANNEALED, R, "README.md"),
    ("realmix", "realmix", ("cifar100.3@10000-5000",), {**ANNEALED, **NET}, R, "libml/data_pair.py"),
    ("realmix", "realmix", ("stl10.3@1000-500",), {**ANNEALED, **FIVE}, R, "libml/data_pair.py"),
    ("torchssl-flexmatch", "flexmatch", PUBLISHED_BY_T, CLASSIC, T, "config/flexmatch"),
    ("torchssl-freematch", "freematch", PUBLISHED_BY_T, CLASSIC, T, "config/freematch"),
    ("torchssl-softmatch", "softmatch", PUBLISHED_BY_T, {**CLASSIC, "algorithm.align_to": "model"}, T, "config/softmatch"),
    ("usb-flexmatch", "flexmatch", PUBLISHED_BY_U, USB, U, "config/classic_cv/flexmatch"),
    ("usb-flexmatch", "flexmatch", ("cifar100.1@400",), {**USB, **SMALLER}, U, "config/classic_cv/flexmatch"),
    ("usb-flexmatch", "flexmatch", ("stl10.1@40",), USB, U, "config/classic_cv/flexmatch"),
    ("usb-freematch", "freematch", ("cifar10.1@40",), {**USB, "algorithm.w_fairness": 0.001}, U, "config/classic_cv/freematch"),
    ("usb-freematch", "freematch", ("svhn.1@40",), {**USB, "algorithm.w_fairness": 0.001, "algorithm.clip": "usb"}, U, "config/classic_cv/freematch"),
    ("usb-freematch", "freematch", ("cifar100.1@400",), {**USB, **SMALLER, "algorithm.w_fairness": 0.001}, U, "config/classic_cv/freematch"),
    ("usb-freematch", "freematch", ("stl10.1@40",), {**USB, "algorithm.w_fairness": 0.001}, U, "config/classic_cv/freematch"),
    ("usb-softmatch", "softmatch", PUBLISHED_BY_U, {**USB, "algorithm.statistics": "aligned"}, U, "config/classic_cv/softmatch"),
    ("usb-softmatch", "softmatch", ("cifar100.1@400",), {**USB, **SMALLER, "algorithm.statistics": "aligned"}, U, "config/classic_cv/softmatch"),
    ("usb-softmatch", "softmatch", ("stl10.1@40",), {**USB, "algorithm.statistics": "aligned"}, U, "config/classic_cv/softmatch"),
    ("usb-adamatch", "adamatch", PUBLISHED_BY_U, USB, U, "config/classic_cv/adamatch"),
    ("usb-adamatch", "adamatch", ("cifar100.1@400",), {**USB, **SMALLER}, U, "config/classic_cv/adamatch"),
    ("usb-adamatch", "adamatch", ("stl10.1@40",), USB, U, "config/classic_cv/adamatch"),
    ("usb-dash", "dash", PUBLISHED_BY_U, {**USB, **DASH}, U, "config/classic_cv/dash"),
    ("usb-dash", "dash", ("cifar100.1@400",), {**USB, **SMALLER, **DASH}, U, "config/classic_cv/dash"),
    ("usb-dash", "dash", ("stl10.1@40",), {**USB, **DASH}, U, "config/classic_cv/dash"),
    ("usb-comatch", "comatch", PUBLISHED_BY_U, {**USB, **COMATCH}, U, "config/classic_cv/comatch"),
    ("usb-comatch", "comatch", ("cifar100.1@400",), {**USB, **SMALLER, **COMATCH}, U, "config/classic_cv/comatch"),
    ("usb-comatch", "comatch", ("stl10.1@40",), {**USB, **COMATCH, "algorithm.lambda_c": 5.0}, U, "config/classic_cv/comatch"),
    ("usb-simmatch", "simmatch", PUBLISHED_BY_U, {**USB, "algorithm.bank_norm": "usb", "algorithm.epass": True}, U, "config/classic_cv/simmatch"),
    ("usb-simmatch", "simmatch", ("cifar100.1@400",), {**USB, **SMALLER, "algorithm.bank_norm": "usb", "algorithm.epass": True}, U, "config/classic_cv/simmatch"),
    ("usb-simmatch", "simmatch", ("stl10.1@40",), {**USB, "algorithm.bank_norm": "usb", "algorithm.epass": True}, U, "config/classic_cv/simmatch"),
    ("usb-crmatch", "crmatch", PUBLISHED_BY_U, USB, U, "config/classic_cv/crmatch"),
    ("usb-crmatch", "crmatch", ("cifar100.1@400",), {**USB, **SMALLER}, U, "config/classic_cv/crmatch"),
    ("usb-crmatch", "crmatch", ("stl10.1@40",), USB, U, "config/classic_cv/crmatch"),
    ("usb-defixmatch", "defixmatch", PUBLISHED_BY_U, {**USB, "algorithm.temperature": 1.0}, U, "config/classic_cv/defixmatch"),
    ("usb-defixmatch", "defixmatch", ("cifar100.1@400",), {**USB, **SMALLER, "algorithm.temperature": 1.0}, U, "config/classic_cv/defixmatch"),
    ("usb-defixmatch", "defixmatch", ("stl10.1@40",), {**USB, "algorithm.temperature": 1.0}, U, "config/classic_cv/defixmatch"),
    *((f"usb-vit-{method}", method, (data,), {**VIT, **net, **own, **ON_VIT_AND_DATA.get((method, parse(data).base), {})}, U, f"config/usb_cv/{method}") for method, own in ON_VIT.items() for data, net in VITS.items()),
    *((f"realmix-mismatch{p}", "realmix", (f"cifar6_mismatch{p}.1@250-1",), MASKED, R, "README.md") for p in OTHER_CLASSES),
)
# fmt: on


def _recipes() -> dict[str, Recipe]:
    out = {}
    for name, algorithm, names, changes, project, file in TABLE:
        for data in names:
            parsed = parse(data)
            form: Settings = {}
            if project in (F, C, R):
                net = settings(algorithm, parsed).get("net.name", "wrn-28-2")
                form = {**TF, "net.name": f"{net}-tf" if net.startswith("wrn") else net}
            out[f"{name}-{parsed.base}"] = Recipe(algorithm, data, {**form, **changes}, f"{project}, {file}")
    return out


RECIPES: Mapping[str, Recipe] = {
    **_recipes(),
    "google-imagenet-supervised": Recipe(
        "supervised",
        "imagenet",
        {
            **IMAGENET,
            **_imagenet(IMAGENET_IMAGES, epochs=200, warmup=5, decay=50, batch=256),
            "strong": "cta:imagenet",
            "algorithm.view": "strong",
        },
        f"{F}, imagenet/supervised.py",
    ),
    "google-imagenet-fixmatch": Recipe(
        "fixmatch",
        "imagenet.1@128116",
        {
            **IMAGENET,
            **_imagenet(128_116, epochs=3000, warmup=50, decay=500, batch=64),  # 8 of 8 GPUs, or of one that holds 64
            "strong": "rand:imagenet",
            "uratio": 5,
            "algorithm.tau": 0.7,
            "algorithm.lambda_u": 10.0,
        },
        f"{F}, imagenet/fixmatch.py",
    ),
    "vpet": Recipe("self-training", "photos/", VPET, f"{V}, README.md"),
    "fast": Recipe("fixmatch", "cifar10.1@250", FAST, "fewlabels, docs/speedrun.md"),
}
