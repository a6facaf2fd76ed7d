"""Recipes against the projects' own defaults, written down here a second time, flag by flag."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torchvision
from torch import nn

import fewlabels as fl
from fewlabels.algorithms import ALGORITHMS, Composed
from fewlabels.config.plain import difference, to_dict
from fewlabels.config.published import RECIPES
from fewlabels.config.recipes import hint, recipe
from fewlabels.config.settings import Train
from fewlabels.config.usual import DATASETS
from fewlabels.data.names import parse

# google-research/fixmatch, flags.DEFINE_* and set_default at the end of each script, on CIFAR-10.
ADAM = {"optim.name": "adamw", "optim.lr": 0.002, "optim.schedule": "constant"}
SGD = {"optim.name": "sgd", "optim.lr": 0.03, "optim.schedule": "cosine", "optim.weight_decay": 0.0005}
GOOGLE: dict[str, dict[str, Any]] = {
    "pseudo-label": {**SGD, "algorithm.weight": 1, "algorithm.tau": 0.95, "algorithm.ramp": 0.4, "uratio": 1},
    "pi-model": {**SGD, "algorithm.weight": 10, "algorithm.ramp": 0.4, "uratio": 1},
    "mean-teacher": {**SGD, "algorithm.weight": 50, "algorithm.ramp": 0.4, "uratio": 1},
    "vat": {
        **ADAM,
        "optim.weight_decay": 0.02,
        "algorithm.weight": 0.3,
        "algorithm.eps": 6,
        "uratio": 1,
        "algorithm.w_entropy": 0.06,
        "algorithm.ramp": 0.4,
    },
    "ict": {**ADAM, "optim.weight_decay": 0.02, "algorithm.weight": 50, "algorithm.beta": 0.5, "uratio": 1},
    "mixup": {**ADAM, "optim.weight_decay": 0.02, "algorithm.beta": 0.5, "uratio": 1},
    "mixmatch": {**SGD, "algorithm.beta": 0.5, "algorithm.w_match": 100, "algorithm.temperature": 0.5, "uratio": 1},
    "mixmatch-cta": {**SGD, "algorithm.beta": 0.75, "algorithm.w_match": 100, "strong": "cta", "cutout": False},
    "remixmatch": {
        **SGD,
        "algorithm.beta": 0.75,
        "algorithm.w_match": 1.5,
        "algorithm.w_kl": 0.5,
        "algorithm.w_rot": 0.5,
        "algorithm.redux": "1st",
        "algorithm.labeled_view": "strong",
        "strong": "cta",
        "cutout": False,
        "algorithm.align": True,
        "algorithm.use_xe": True,
        "algorithm.strong_views": 1,
        "uratio": 1,
    },
    "remixmatch-weak": {"algorithm.redux": "swap", "algorithm.labeled_view": "weak", "strong": "none"},
    "uda": {
        **SGD,
        "algorithm.tau": 0.95,
        "algorithm.lambda_u": 1,
        "algorithm.w_entropy": 0,
        "uratio": 7,
        "algorithm.temperature": 1,
        "algorithm.tsa": "none",
        "strong": "rand:google",
    },
    "fixmatch": {**SGD, "algorithm.tau": 0.95, "algorithm.lambda_u": 1, "uratio": 7, "strong": "cta", "cutout": True},
    "fixmatch-ra": {**SGD, "algorithm.tau": 0.95, "strong": "rand:google", "cutout": True},
    "supervised": {**ADAM, "optim.weight_decay": 0.02, "algorithm.smoothing": 0.001},
    "supervised-mixup": {**ADAM, "optim.weight_decay": 0.002, "algorithm.beta": 0.5},
    "supervised-mixup-26m": {**ADAM, "optim.weight_decay": 0.002, "net.width": 135},
}


def flat(train: Train) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in to_dict(train).items():
        out |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return out


@pytest.mark.parametrize("name", GOOGLE)
def test_google(name: str) -> None:
    found = flat(recipe(f"google-{name}-cifar10"))
    common = {"batch": 64, "steps": 2**20, "ema.decay": 0.999, "data.normalize": "minus-one-one"}
    common |= {"net.name": "wrn-28-2-tf", "optim.momentum": 0.9, "optim.nesterov": True, "optim.warmup": 0}
    expected = {**common, **GOOGLE[name]}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_train_of_its_algorithm_and_data(name: str) -> None:
    train = recipe(name)
    found = RECIPES[name]
    assert train.algorithm.name == found.algorithm and train.data.name == found.data
    set_first = name.startswith("google-imagenet-")  # called as the folder there
    named = name in ("vpet", "fast") or set_first or name.endswith(f"-{parse(found.data).base}")  # vpet: any pictures
    assert named and found.source.count("/") >= 1
    assert recipe(name, "cifar10.5@40") == fl.recipe(name, data="cifar10.5@40")
    other = difference(recipe(name, "digits.9@50"), train)
    assert other == {"data.name": "digits.9@50"}  # a whole, whatever the images


def test_what_the_papers_report() -> None:
    """Each algorithm on each data set of the tables: FixMatch (Sohn et al. 2020), table 2."""
    for method in (
        "pi-model",
        "pseudo-label",
        "mean-teacher",
        "mixmatch",
        "uda",
        "remixmatch",
        "fixmatch",
        "fixmatch-ra",
    ):
        for data, net, decay in (
            ("cifar10", "wrn-28-2-tf", 0.0005),
            ("cifar100", "wrn-28-8-tf", 0.001),
            ("svhn", "wrn-28-2-tf", 0.0005),
            ("stl10", "wrn-37-2-tf", 0.0005),
        ):
            train = recipe(f"google-{method}-{data}")
            assert (train.net.name, train.optim.weight_decay, train.steps) == (net, decay, 2**20)


@pytest.mark.parametrize("data", ["svhn", "svhn_noextra"])
def test_fully_supervised_svhn(data: str) -> None:
    train = recipe(f"google-supervised-{data}")
    assert isinstance(train.algorithm, fl.Supervised)
    assert (train.algorithm.smoothing, train.optim.weight_decay) == (0.01, 0.002)


def test_cadr_runs() -> None:
    """run.sh of CADR-FixMatch: 8,192 kimg of 64; filters 32, 128, 32 with four scales, 64 with res18."""
    nets = {"cifar10": "wrn-28-2-tf", "cifar100": "wrn-28-8-tf", "stl10": "wrn-37-2-tf", "mini_imagenet": "resnet18"}
    for base, net in nets.items():
        for train in (recipe(f"cadr-fixmatch-{base}"), recipe(f"cadr-{base}")):
            assert (train.steps, train.strong, train.net.name) == (8192 * 1024 // 64, "cta", net)
        assert train.algorithm == fl.CADR() and train.optim.weight_decay == (0.0015 if base == "cifar100" else 0.0005)
    assert recipe("cadr-fixmatch-cifar100").optim.weight_decay == 0.001
    # also without the name: the data name says whose protocol it is
    assert recipe("fixmatch", "cifar10_LT_50.1@50-1").steps == recipe("uda", "stl10_LT_50").steps == 131_072
    assert recipe("fixmatch", "cifar6_mismatch50.1@250").steps == recipe("fixmatch", "cifar10").steps == 2**20


def test_ports() -> None:
    for project, preset in (("kekmodel", "rand:kekmodel"), ("leedoyup", "rand:leedoyup")):
        for base, net, decay in (("cifar10", "wrn-28-2", 0.0005), ("cifar100", "wrn-28-8", 0.001)):
            train = recipe(f"{project}-fixmatch-{base}")
            assert (train.net.name, train.optim.weight_decay, train.strong) == (net, decay, preset)
            assert (train.data.rule, train.uratio, train.batch) == ("balanced", 7, 64)
    both = recipe("leedoyup-sup-consistency-cifar100")
    assert both.algorithm == fl.FixMatch() and parse(both.data.name).labels is None and both.net.name == "wrn-28-8"
    alone = recipe("leedoyup-sup-only-cifar100")
    assert alone.algorithm == fl.Supervised()
    assert (alone.optim.name, alone.optim.lr, alone.optim.weight_decay) == ("sgd", 0.03, 0.001)
    assert both.optim == alone.optim


@pytest.mark.parametrize("data", ["cifar100", "stl10"])
def test_usb_on_vits(data: str) -> None:
    """microsoft/Semi-supervised-learning, 1ef4cbe, config/usb_cv/*/*_cifar100_200_0.yaml and *_stl10_40_0.yaml."""
    common: dict[str, Any] = {"batch": 8, "uratio": 1, "steps": 204800, "eval_every": 2048, "ema.decay": 0.0}
    common |= {"optim.name": "adamw", "optim.weight_decay": 0.0005, "optim.warmup": 5120, "optim.schedule": "cosine"}
    common |= {"net.drop_path": 0.2, "strong": "rand:leedoyup", "data.rule": "usb"}
    common |= {
        "cifar100": {"optim.lr": 0.0005, "optim.layer_decay": 0.5, "net.patch": 2, "data.name": "cifar100.1@200"},
        "stl10": {"optim.lr": 0.0001, "optim.layer_decay": 0.65, "net.patch": None, "data.name": "stl10.1@40"},
    }[data]
    later = {"optim.lr": 5e-5, "optim.layer_decay": 1.0}
    usb: dict[str, dict[str, Any]] = {
        "supervised": {"algorithm.view": "weak", "algorithm.smoothing": 0},
        "fixmatch": {"algorithm.tau": 0.95, "algorithm.target": "hard", "algorithm.lambda_u": 1},
        "uda": {"algorithm.tau": 0.8, "algorithm.temperature": 0.4, "algorithm.tsa": "none"},
        "flexmatch": {"algorithm.mapping": "convex", "optim.warmup": 0 if data == "cifar100" else 5120},
        "freematch": {"algorithm.w_fairness": 0.001, "algorithm.ema_p": 0.999},
        "softmatch": {"algorithm.n_sigma": 2, "algorithm.ema_p": 0.999, "algorithm.align_to": "uniform"},
        "adamatch": {"algorithm.tau": 0.95, "algorithm.ema_p": 0.999},
        "dash": {"algorithm.gamma": 1.27, "algorithm.rho_min": 0.05, "algorithm.lambda_u": 1},
        "comatch": {
            "algorithm.queue_batches": 32,
            "algorithm.temperature": 0.2,
            "algorithm.alpha": 0.9,
            "algorithm.epass": True,
        }
        | {"algorithm.width": 64, "algorithm.lambda_c": 1 if data == "cifar100" else 5, "ema.decay": 0.999},
        "simmatch": {"algorithm.temperature": 0.1, "algorithm.alpha": 0.9, "algorithm.width": 128, "ema.decay": 0.999}
        | {"algorithm.epass": True, "algorithm.align_slots": 32, "algorithm.lambda_in": 1},
        "crmatch": {"algorithm.tau": 0.95},
        "defixmatch": {"algorithm.tau": 0.95, "algorithm.lambda_u": 0.5},
        "refixmatch": {"algorithm.tau": 0.95, "algorithm.temperature": 0.5, **later},
        "sequencematch": {"algorithm.temperature": 0.5, **later},
    }
    assert {f"usb-vit-{method}-{data}" for method in usb} == {
        name for name in RECIPES if name.startswith("usb-vit-") and name.endswith(data)
    }
    for method, options in usb.items():
        found, expected = flat(recipe(f"usb-vit-{method}-{data}")), {**common, **options}
        assert {key: found[key] for key in expected} == expected, method


def test_torchssl_and_usb() -> None:
    """Their classic settings: config/*.yaml of TorchSSL, config/classic_cv of USB."""
    common = {"batch": 64, "uratio": 7, "steps": 2**20, "optim.lr": 0.03, "ema.decay": 0.999, "strong": "rand:leedoyup"}
    common |= {"optim.nesterov": True, "optim.schedule": "cosine", "optim.warmup": 0}
    usb: dict[str, dict[str, Any]] = {
        "flexmatch": {"tau": 0.95, "warmup": True},
        "freematch": {"ema_p": 0.999, "w_fairness": 0.001, "quantile": None},
        "softmatch": {"ema_p": 0.999, "n_sigma": 2.0, "statistics": "aligned", "align_to": "uniform"},
        "adamatch": {"tau": 0.95, "variant": "usb", "ema_p": 0.999},
        "dash": {
            "variant": "usb",
            "gamma": 1.27,
            "rho_min": 0.05,
            "wait_epochs": 2,
            "drop_epochs": 10,
            "lambda_u": 1.0,
        },
        "comatch": {"tau": 0.95, "tau_graph": 0.8, "temperature": 0.2, "alpha": 0.9, "queue_batches": 5, "epass": True},
        "simmatch": {
            "tau": 0.95,
            "temperature": 0.1,
            "alpha": 0.9,
            "align_slots": 32,
            "epass": True,
            "bank_norm": "usb",
        },
        "crmatch": {"tau": 0.95, "w_distance": 1.0, "w_rotation": 1.0},
        "defixmatch": {"tau": 0.95, "lambda_u": 0.5, "temperature": 1.0},
    }
    for method, options in usb.items():
        for data, net in (("cifar10", "28-2"), ("svhn", "28-2"), ("cifar100", "28-2"), ("stl10", "37-2")):
            found = flat(recipe(f"usb-{method}-{data}"))
            expected = common | {f"algorithm.{k}": v for k, v in options.items()} | {"net.name": f"wrn-{net}"}
            expected |= {"optim.weight_decay": 0.001 if data == "cifar100" else 0.0005, "data.rule": "usb"}
            assert {key: found[key] for key in expected} == expected
    assert recipe("usb-comatch-stl10").algorithm == replace(recipe("usb-comatch-cifar10").algorithm, lambda_c=5.0)
    assert flat(recipe("usb-freematch-svhn"))["algorithm.clip"] == "usb"
    for method in ("flexmatch", "freematch", "softmatch"):
        found = flat(recipe(f"torchssl-{method}-cifar100"))
        expected = common | {"net.name": "wrn-28-8", "optim.weight_decay": 0.001}
        assert {key: found[key] for key in expected} == expected
    free = flat(recipe("torchssl-freematch-svhn"))
    assert (free["algorithm.w_fairness"], free["algorithm.clip"]) == (0.01, "thresholds")
    assert flat(recipe("torchssl-softmatch-stl10"))["algorithm.align_to"] == "model"


def test_realmix_baselines() -> None:
    """Adam 0.002, constant, decay 0.02 apart from the gradient; Mean Teacher 0.2 (mean_teacher.py); labels apart."""
    for name in ("pseudo-label", "pi-model", "mean-teacher", "vat", "ict", "mixup", "mixmatch"):
        for data in ("cifar10", "svhn"):
            found = flat(recipe(f"realmix-{name}-{data}"))
            expected = {**ADAM, "optim.weight_decay": 0.2 if name == "mean-teacher" else 0.02, "data.rule": "realmix"}
            assert {key: found[key] for key in expected} == expected and found["uratio"] == 1
            assert found["data.name"] == f"{data}.3@250-5000"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("realmix-cifar10", "cifar10.3@250-5000"),
        ("realmix-svhn", "svhn.3@250-5000"),
        ("realmix-svhn_noextra", "svhn_noextra.3@250-5000"),
        ("realmix-cifar100", "cifar100.3@10000-5000"),
        ("realmix-stl10", "stl10.3@1000-500"),
        *((f"realmix-mismatch{p}-cifar10", f"cifar6_mismatch{p}.1@250-1") for p in (0, 25, 50, 75, 100)),
    ],
)
def test_realmix(name: str, data: str) -> None:
    """Flags of realmix.py, its README's copies and annealing; four blocks in each of log2(side) - 2 stages."""
    found = flat(recipe(name))
    expected = {**ADAM, "optim.weight_decay": 0.02, "data.rule": "realmix", "uratio": 1, "batch": 64, "steps": 2**20}
    expected |= {"algorithm.beta": 0.75, "algorithm.w_match": 75.0, "algorithm.ramp_steps": 2**14, "ema.decay": 0.999}
    expected |= {"algorithm.copy_kind": "cutout", "algorithm.copies": 50, "algorithm.temperature": 0.5}
    expected |= {"data.name": data, "net.name": "wrn-28-2-tf", "net.stages": 5 if "stl10" in name else None}
    masked = "mismatch" in name
    expected |= {"algorithm.tsa": "none" if masked else "linear", "algorithm.percent_mask": 0.1 if masked else 0.0}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.slow
def test_short_recipes_have_one_optimizer_and_short_ramps() -> None:
    for data, lr, steps in (("digits@40", 0.1, 500), ("photos/", 0.03, 3000)):
        for name in ALGORITHMS.keys() - {"frozen"}:  # which has no steps
            train = recipe(name, data)
            assert (train.optim.name, train.optim.lr, train.steps) == ("sgd", lr, steps)
            many = issubclass(ALGORITHMS[name], Composed) and name != "pseudo-label"
            assert train.uratio == (4 if many or name in ("supervised", "supervised-mixup") else 1)
            changes = {
                "pi-model": {"weight": None},  # by the number of classes
                "mean-teacher": {"weight": None},
                "mixmatch": {"w_match": None, "ramp_steps": steps},
                "realmix": {"w_match": None, "ramp_steps": steps},
                "remixmatch": {"ramp_steps": steps // 4},
                "uda": {"tsa_ramp": steps // 4},
                "simmatch": {"start": steps // 10},
                "cgmatch": {"start": steps // 10},
                "dash": {"epoch_steps": {500: 2, 3000: 12}[steps]},
            }
            assert train.algorithm == ALGORITHMS[name](**changes.get(name, {}))
    assert isinstance(recipe("supervised", "digits").algorithm, fl.Supervised)
    assert recipe("supervised", "digits").algorithm == fl.Supervised()


@pytest.mark.slow
def test_long_recipes_have_the_published_weights_whatever_the_net() -> None:
    for name, cls in ALGORITHMS.items():
        for data in ("cifar10.1@40", "cifar100@400", "stl10", "cifar10_LT_50", "mini_imagenet"):
            train = recipe(name, data)
            if name == "frozen":
                continue  # with learned weights whatever the data
            aligned = {"alignment": "uniform"} if name == "iomatch" and "cifar100" in data else {}
            if name != "supervised":  # whose smoothing goes with the data
                assert train.algorithm == cls(**aligned)
            assert train.net.bn_momentum is None
            other = difference(recipe(name, data, net="timm:resnet18", pretrained=True), train)
            assert other == {"net.name": "timm:resnet18", "net.pretrained": True}


def test_a_fitted_algorithm_has_one_recipe_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in ("cifar10.1@40", "digits@40", "photos/"):
        train = recipe("frozen", data, pretrained="w.pth")
        other = difference(train, Train(algorithm=fl.Frozen()))
        assert other == {
            **({"data.name": data} if data != "digits@40" else {}),
            "data.image_size": 128,
            "net.name": "timm:tf_efficientnet_lite0",
            "net.pretrained": "w.pth",
            "net.train": "head",
            "steps": 0,
        }
    monkeypatch.setattr("fewlabels.nets.learned.packaged", lambda: None)
    assert recipe("frozen").net.pretrained is True
    monkeypatch.setattr("fewlabels.nets.learned.packaged", lambda: Path("lite0.pth"))
    assert recipe("frozen").net.pretrained == "lite0.pth"


SHORT = [("digits@40", 0.1, None), ("photos/", 0.03, 0.01), ("photos/list.csv", 0.03, 0.01)]


@pytest.mark.parametrize(("data", "lr", "momentum"), SHORT)
def test_a_short_recipe_goes_with_the_net(data: str, lr: float, momentum: float | None) -> None:
    """0.01 in place of the 0.001 of the authors' nets; others keep their own. Learned weights get a smaller rate."""
    assert (recipe("uda", data).optim.lr, recipe("uda", data).net.bn_momentum) == (lr, momentum)
    for net, expected in (
        ("wrn-28-2", momentum),
        ("wrn-28-2-tf", momentum),
        ("resnet18", momentum),
        ("small-16", None),
        ("timm:resnet18", None),
        ("torchvision:mobilenet_v3_small", None),
    ):
        train = recipe("uda", data, net=net)
        assert (train.net.name, train.net.bn_momentum, train.optim.lr) == (net, expected, lr)
        for weights in (True, "weights.pth"):
            tuned = recipe("uda", data, net=net, pretrained=weights)
            kept = {"net.freeze_bn": True} if ":" in net else {}
            assert difference(tuned, train) == {"net.pretrained": weights, "optim.lr": 0.003, **kept}
    assert recipe("uda", data, pretrained="w.pth").net.name == recipe("uda", data).net.name


@pytest.mark.parametrize("data", ["digits@40", "photos/"])
def test_bypasses_have_rates_of_their_own(data: str) -> None:
    """AdamW, decay 5e-4, warm-up of 2.5 %, rates of 1e-3 to 1e-5: OSU-MLB/SSL-Foundation-Models, config/lora."""
    train = recipe("fixmatch", data, net="timm:test_vit", pretrained=True, train="lora")
    plain = recipe("fixmatch", data, net="timm:test_vit")
    other = {"net.pretrained": True, "net.train": "lora", "optim.name": "adamw", "optim.lr": 0.001}
    assert train.optim.weight_decay == 0.0005 and train.optim.warmup == int(plain.steps * 0.025)
    assert difference(train, plain) == other | {"optim.warmup": int(plain.steps * 0.025)}
    head = recipe("fixmatch", data, net="timm:test_vit", pretrained=True, train="head")
    assert difference(head, plain) == {"net.pretrained": True, "net.train": "head", "optim.lr": 0.003}


@pytest.mark.slow
@pytest.mark.parametrize("net", ["timm:tf_efficientnet_lite0", "torchvision:resnet18"])
def test_a_folder_s_recipe_leaves_the_library_s_batch_norm(net: str) -> None:
    """What a net moves its statistics by is the library's, with learned weights too."""
    train = recipe("fixmatch", "photos/", net=net, pretrained=True)
    norms = [m for m in train.net.build(3, (3, 32, 32), blank=True).modules() if isinstance(m, nn.BatchNorm2d)]
    if net.startswith("timm:"):
        theirs: Any = timm.create_model(net.removeprefix("timm:"))
    else:
        theirs = torchvision.models.get_model(net.removeprefix("torchvision:"))
    own = [(m.momentum, m.eps) for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(own) > 10 and [(m.momentum, m.eps) for m in norms] == own


def test_a_project_s_recipe_is_a_whole_whatever_the_net() -> None:
    for name in ("google-vat-cifar10", "cadr-fixmatch-stl10"):
        train = recipe(name, "photos/", net="timm:resnet18", pretrained=True)
        other = {"net.name": "timm:resnet18", "net.pretrained": True, "data.name": "photos/"}
        assert difference(train, recipe(name)) == other


def test_default() -> None:
    assert recipe() == recipe("fixmatch", "digits@40")
    assert difference(recipe("fixmatch", "cifar10"), Train()) == {"data.name": "cifar10"}


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="there is no algorithm 'google-vat-svnh'; did you mean google-vat-svhn"):
        recipe("google-vat-svnh")
    with pytest.raises(ValueError, match="there is no algorithm 'mixmach'; did you mean mixmatch"):
        recipe("mixmach")


def test_hint() -> None:
    def of(data: str, net: str) -> str | None:
        return hint(Train(data=fl.Data(data), net=fl.Net(net)))

    assert of("cifar100.1@400", "wrn-28-2") == "published CIFAR-100 numbers use wrn-28-8, weight decay 0.001"
    assert of("cifar100_LT_50", "wrn-28-2-tf") == "published CIFAR-100 numbers use wrn-28-8, weight decay 0.001"
    assert of("stl10@1000", "wrn-28-2") == "published STL-10 numbers use wrn-37-2"
    assert of("miniImageNet_LT_100", "wrn-28-2") == "published mini-ImageNet numbers use resnet18"
    for data, net in (
        ("cifar100", "wrn-28-8"),
        ("cifar100", "wrn-28-8-tf"),
        ("cifar10", "small"),
        ("cifar100/", "small"),
    ):
        assert of(data, net) is None
    for name in DATASETS:
        assert hint(recipe("fixmatch", name)) is None
