"""The methods of the consistency family under the names that their golden cases have for settings, state and values."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from golden_recipe import u, u64
from torch import Tensor, nn

from fewlabels.algorithms import (
    AdaMatch,
    CGMatch,
    CoMatch,
    Consistency,
    CRMatch,
    Dash,
    DeFixMatch,
    FlexMatch,
    FreeMatch,
    FullMatch,
    ReFixMatch,
    RegMixMatch,
    SequenceMatch,
    ShrinkMatch,
    SimMatch,
    SoftMatch,
)
from fewlabels.algorithms.crmatch import cosine
from fewlabels.algorithms.memory import Ring
from fewlabels.algorithms.regmixmatch import Mixes, drawn_box
from fewlabels.algorithms.shrinkmatch import cuts
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info, Losses, Outputs

CODES = {"labeled": 1, "labeled_strong": 2, "weak": 3, "strong": 4, "strong2": 5, "medium": 6, "rot": 7}
AMPLITUDES = {"labeled": 3.0, "labeled_strong": 3.0, "weak": 8.0, "strong": 4.0, "strong2": 4.0, "medium": 6.0}
USUAL = {"p_cutoff": "tau", "ulb_loss_ratio": "lambda_u", "ema_p": "ema_p", "T": "temperature"}
STEPS = 2**20


class Identity(nn.Module):
    """A net whose images are its logits."""

    def features(self, x: Tensor) -> Tensor:
        return x

    def head(self, f: Tensor) -> Tensor:
        return f


class Method:
    """A case of one algorithm: its configuration, its nets, its inputs and what is compared.

    What a case has and no table here knows fails by name.
    """

    config: ClassVar[Any]
    labeled: tuple[str, ...] = ("labeled",)
    unlabeled: tuple[str, ...] = ("weak", "strong")
    beside: tuple[str, ...] = ()
    """Views that stand for something else."""
    views: ClassVar[dict[str, Tensor]] = {}
    """Those of the call, by name."""
    settings: ClassVar[dict[str, str | None]] = {}
    """From the case's names to options; None for what is no option."""
    values: ClassVar[dict[str, str]] = {"sup": "loss_x", "unsup": "loss_u", "total": "loss"}
    """From the case's names to logged values."""
    state: ClassVar[dict[str, str]] = {}
    """From the case's names to buffers."""
    weighted = False
    """Whether the mask is of weights, which have a rounding."""
    until: ClassVar[dict[str, tuple[int, str]]] = {}
    """Cases of a fault that there is no option for: the call after which it shows, and what shows it first."""
    ignored: frozenset[str] = frozenset()
    """What the case has for whoever reads it."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.seen = case, {}
        names = {
            "p_cutoff": "tau",
            "ulb_loss_ratio": "lambda_u",
            "ema_p": "ema_p",
            "T": "temperature",
        } | self.settings
        unknown = case["config"].keys() - names.keys() - {"hard_label"}
        assert not unknown, f"{case['name']}: no option is known for the settings {unknown}"
        options = {names[name]: value for name, value in case["config"].items() if names.get(name)}
        if "hard_label" in case["config"] and hasattr(self.config, "target"):
            options["target"] = "hard" if case["config"]["hard_label"] else "soft"
        algorithm = self.config(**self.options(options)).build(self.info())
        assert isinstance(algorithm, Consistency)
        self.algorithm: Any = algorithm
        self.watch("target", "align")
        self.net = self.teacher = self.make_net()
        for name, value in case.get("initial_state", {}).items():
            self.set(name, value)

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Those of the configuration, from the translated ones."""
        return options

    @property
    def width(self) -> int:
        """Of an image: as many numbers as classes, or raw features."""
        return 6 if "head" in self.case.get("nets", {}) else int(self.case["K"])

    def info(self) -> Info:
        case = self.case
        counts = torch.full((case["K"],), 4)
        size = case["config"].get("ulb_dest_len", 51)
        return Info(case["K"], (self.width, 1, 1), self.width, counts, size, STEPS, case["B"], case["M"])

    def make_net(self) -> nn.Module:
        return Identity()

    def set(self, name: str, value: Any) -> None:
        assert name in self.state, f"{self.case['name']}: no state {name} is known"
        buffer = self.algorithm.get_buffer(self.state[name])
        buffer.copy_(torch.tensor(value, dtype=buffer.dtype))

    def watch(self, *slots: str) -> None:
        """Keep in `seen` what they give."""
        for name in slots:
            slot = getattr(self.algorithm, name)
            if isinstance(slot, nn.Module):
                slot.register_forward_hook(lambda module, given, out, name=name: self.seen.__setitem__(name, out))
            elif slot is not None:
                self.algorithm.put(name, self.watched(name, slot))

    def watched(self, name: str, slot: Callable[[Seen], Tensor]) -> Callable[[Seen], Tensor]:
        def call(seen: Seen) -> Tensor:
            self.seen[name] = slot(seen)
            return self.seen[name]

        return call

    def image(self, view: str, t: int) -> Tensor:
        """A view of call `t`, ``[N, K]`` float32, with gradient: by the file's formula."""
        inputs, rows = self.case["inputs"], self.case["B"] if view.startswith("labeled") else self.case["M"]
        usual = 1.5 if "head" in self.case.get("nets", {}) else AMPLITUDES[view]
        amplitude = inputs.get("amp", {}).get(view, usual)
        amplitude = amplitude[t] if isinstance(amplitude, list) else amplitude
        x = amplitude * u64(inputs["seed"] + 20 * t + CODES[view], rows, self.width)
        if view in inputs.get("follow", {}):
            x = x + inputs["follow"][view] * self.image("weak", t).detach().numpy()
        x = x.astype(np.float32)
        if inputs.get("bias"):
            x = (x.astype(np.float64) + np.array(inputs["bias"])).astype(np.float32)
        for row, values in inputs.get("rows", {}).get(view, {}).get(str(t), {}).items():
            x[int(row)] = values
        return torch.from_numpy(x).requires_grad_()

    def progress(self, call: dict[str, Any], t: int) -> float:
        return 0.5

    def rng(self, t: int) -> Rng:
        return Rng(0, t)

    def before(self, call: dict[str, Any], t: int) -> None:
        """What is to be done before the call."""

    def value(self, name: str, losses: Losses) -> Any:
        """What the case calls `name`; state is asked for as ``state.NAME``."""
        if name in self.values:
            return losses.log[self.values[name]]
        start, _, rest = name.partition(".")
        if start == "state" and rest in self.state:
            return self.algorithm.get_buffer(self.state[rest])
        if name == "mask":
            return losses.kept
        if name == "mask_mean":
            assert losses.kept is not None
            return losses.kept.mean()
        if name in ("target", "label"):
            target = self.seen["target"]
            return target if target.ndim == np.ndim(self.expected) else losses.pseudo
        if name == "aligned":
            return self.seen["align"]
        raise AssertionError(f"{self.case['name']}: nothing is known to compare {name} with")

    expected: Any = None
    """The value that is asked for."""


class FlexMatchCase(Method):
    config = FlexMatch
    settings: ClassVar = {"thresh_warmup": "warmup", "ulb_dest_len": None, "beta": None}
    state: ClassVar = {"selected_label": "select.last", "beta": ""}

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | ({"temperature": 1.0} if "soft_usb" in self.case["name"] else {})

    def before(self, call: dict[str, Any], t: int) -> None:
        """Where beta is given instead of a state: images taken so that it is that."""
        if "beta" in self.case["config"]:
            last = [k for k, b in enumerate(self.case["config"]["beta"]) for _ in range(round(20 * b))]
            self.untouched = torch.tensor(last + [-1] * (len(self.algorithm.select.last) - len(last)))
            self.algorithm.select.last.copy_(self.untouched)
        self.thresholds = self.algorithm.select.thresholds()

    def value(self, name: str, losses: Losses) -> Any:
        last, rows = self.algorithm.select.last, self.case["M"]
        if name == "threshold":
            return self.thresholds
        if name == "state.beta":  # by the convex map
            share = self.algorithm.select.thresholds() / self.algorithm.select.config.tau
            return 2 * share / (1 + share)
        if name == "select":  # those that are sure, whose label is kept
            kept = torch.where(torch.tensor(self.expected) > 0, losses.pseudo, self.untouched[:rows])
            assert torch.equal(last[:rows], kept)
            return self.expected
        return super().value(name, losses)


class FreeMatchCase(Method):
    config = FreeMatch
    settings: ClassVar = {
        "ent_loss_ratio": "w_fairness",
        "use_quantile": "quantile",
        "clip_thresh": "clip",
        "clip": "clip",
        "time_p": None,
        "p_model": None,
    }
    values: ClassVar = {**Method.values, "fairness": "loss_fair", "threshold": "tau", "threshold_class": "tau"}
    state: ClassVar = {name: f"select.{name}" for name in ("time_p", "p_model", "label_hist")}

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        clip = {True: "usb", False: "none", None: "none"}
        given = options.get("clip")
        options["clip"] = "thresholds" if isinstance(given, list) else clip[given]
        options["quantile"] = 0.8 if options.get("quantile") else None
        return {"w_fairness": 0.0} | options

    def before(self, call: dict[str, Any], t: int) -> None:
        """Where values are given instead of a state, they stay."""
        for name in ("time_p", "p_model"):
            if name in self.case["config"]:
                self.set(name, self.case["config"][name])
                self.algorithm.select.config.__dict__["ema_p"] = 1.0


class SoftMatchCase(Method):
    config = SoftMatch
    weighted = True
    settings: ClassVar = {"dist_align": None, "dist_uniform": "align_to", "n_sigma": "n_sigma", "per_class": None}
    state: ClassVar = {
        "mu": "select.mu",
        "var": "select.var",
        "p_model": "select.align.p_model",
        "p_target": "select.align.p_target",
    }

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__(case)
        self.algorithm.select.align.register_forward_hook(lambda *a: self.seen.__setitem__("align", a[2]))
        if "torchssl" in case["name"]:  # whose mean starts uniform
            self.set("p_model", [1 / case["K"]] * case["K"])

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        options["align_to"] = "uniform" if options.get("align_to") else "model"
        return options | {"statistics": self.case.get("statistics", "unaligned")}


class Coupled(nn.Module):
    """Stands for batch statistics: what it says of an image depends on the pass."""

    def features(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.mean(0)

    def head(self, f: Tensor) -> Tensor:
        return f


class Interpolation(Rng):
    """In place of the random shares: those of the case."""

    def __init__(self, case: dict[str, Any], t: int) -> None:
        super().__init__(0, t)
        self.case = case

    def uniform(self, purpose: str, rows: int, *shape: int) -> Tensor:
        seed = self.case["inputs"]["seed"] + 20 * self.step + 9
        return torch.from_numpy((u64(seed, rows, *shape) / 2 + 0.5).astype(np.float32))


class AdaMatchCase(Method):
    config = AdaMatch
    settings: ClassVar = {"confidence": "tau", "wu": "lambda_u", "use_cr": None, "steps": None, "total": None}
    values: ClassVar = {**Method.values, "threshold": "tau"}
    state: ClassVar = {"p_model": "align.p_model", "p_target": "align.p_target", "p_labeled": "align.p_data"}
    ignored = frozenset({"interpolation_gap"})

    def __init__(self, case: dict[str, Any]) -> None:
        self.original = "nets" in case
        if self.original:
            self.labeled = ("labeled", "labeled_strong")
        super().__init__(case)

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "temperature": 1.0, "variant": "paper" if self.original else "usb"}

    def make_net(self) -> nn.Module:
        return Coupled() if self.original else Identity()

    def progress(self, call: dict[str, Any], t: int) -> float:
        self.share = call.get("progress", 0.5)
        return float(self.share)

    def rng(self, t: int) -> Rng:
        return Interpolation(self.case, t)

    def value(self, name: str, losses: Losses) -> Any:
        if name == "warmup":
            return self.algorithm.lambda_u(torch.tensor(self.share))
        if name == "state.p_unlabeled_newest":
            return self.algorithm.align.recent[-1]
        if name == "state.p_unlabeled":
            return self.algorithm.align.recent.mean(0)
        return super().value(name, losses)


class DashCase(Method):
    config = Dash
    settings: ClassVar = {
        **{name: name for name in ("gamma", "rho_min", "temperature")},
        "wu": "lambda_u",
        "min_select_th": "rho_min",
        "dt_start_epoch": "wait_epochs",
        "drop_step": "drop_epochs",
        **dict.fromkeys(("C", "losses", "epochs", "rho_init", "steps", "steps_per_epoch")),
    }
    ignored = frozenset({"unsup_soft", "unsup_hard", "strong_losses"})

    def __init__(self, case: dict[str, Any]) -> None:
        self.usb = "rho_init" in case["config"]
        super().__init__(case)
        losses = case["config"].get("losses", [case["config"].get("rho_init")])
        self.algorithm.falling.total.fill_(sum(losses))
        self.algorithm.falling.count.fill_(len(losses))

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        usb = {"variant": "usb", "epoch_steps": 1, "wait_epochs": 2, "drop_epochs": 10, "lambda_u": 1.0}
        return options | (usb if self.usb else {"lambda_u": 0.9 * options["lambda_u"]})

    def progress(self, call: dict[str, Any], t: int) -> float:
        """USB's steps count from the end of the warm-up."""
        step = 2 + self.case["config"]["steps"][t] if self.usb else 1024 * call["epoch"]
        return float(step / STEPS)

    def value(self, name: str, losses: Losses) -> Any:
        falling = self.algorithm.falling
        if name == "unsup" and not self.usb:  # with the constant in front of it
            return 0.9 * losses.log["loss_u"]
        if name in ("threshold", "state.rho"):
            return falling.rho.clamp(max=500)
        if name == "threshold_raw":  # the smallest threshold hides it
            return falling.rho.clamp(max=500) if self.expected > falling.config.rho_min else self.expected
        if name == "state.updates":
            return self.case["config"]["steps"].index(0) + 1 if self.expected == 1 else self.expected
        if name == "state.hard":
            return bool(falling.hard)
        return super().value(name, losses)


class DeFixMatchCase(Method):
    config = DeFixMatch
    labeled = ("labeled", "labeled_strong")
    values: ClassVar = {**Method.values, "anti": "loss_a", "mask_labeled_mean": "mask_x"}

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return options | ({"temperature": 1.0} if "soft_usb" in self.case["name"] else {})

    def value(self, name: str, losses: Losses) -> Any:
        if name == "mask_labeled":
            assert float(losses.log["mask_x"]) == np.mean(self.expected)
            return self.expected
        if name == "target_labeled":  # seen through the loss and its gradients
            return self.expected
        return super().value(name, losses)


class Raw(nn.Module):
    """A linear head on the images, which are the features, and the heads of the algorithm, with the file's weights."""

    def __init__(self, heads: Any, seed: int = 500, projector: int = 600) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)
        self.heads = nn.ModuleDict(copy.deepcopy(dict(heads)))
        with torch.no_grad():
            self.linear.weight.copy_(2 * torch.from_numpy(u(seed, 5, 6)))
            self.linear.bias.copy_(0.5 * torch.from_numpy(u(seed + 1, 5)))
            for number, part in enumerate(self.heads["projector"].each):
                for offset, weight in enumerate(part.parameters()):
                    scale = 1.0 if weight.dim() == 2 else 0.25
                    weight.copy_(scale * torch.from_numpy(u(projector + 10 * number + offset, *weight.shape)))

    def features(self, x: Tensor) -> Tensor:
        return x

    def head(self, f: Tensor) -> Tensor:
        return self.linear(f)


class ProjectedCase(Method):
    """CoMatch and SimMatch: embeddings in a memory."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__(case)
        self.algorithm.align.usual.register_forward_hook(lambda *a: self.seen.__setitem__("aligned", a[2]))

    def make_net(self) -> nn.Module:
        return Raw(self.algorithm.heads)

    def value(self, name: str, losses: Losses) -> Any:
        if name == "aligned":
            return self.seen["aligned"]
        if name == "grad_projector":
            return self.projector_gradients()
        return super().value(name, losses)

    def projector_gradients(self) -> dict[str, list[float]]:
        """Sum, and sum of the absolute values, of the gradient of each weight, under USB's names or the authors'."""
        found = {}
        for number, part in enumerate(self.net.heads["projector"].each):
            for name, weight in part.named_parameters():
                full = f"mlp_proj{f'_{number + 1}' if number else ''}.{name}"
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                found[full] = found[name] = [float(gradient.sum()), float(gradient.abs().sum())]
        self.net.zero_grad()
        return found


class CoMatchCase(ProjectedCase):
    config = CoMatch
    unlabeled = ("weak", "strong", "strong2")
    settings: ClassVar = {
        "contrast_p_cutoff": "tau_graph",
        "contrast_loss_ratio": "lambda_c",
        "smoothing_alpha": "alpha",
        "queue_batch": "queue_batches",
        "da_len": "align_slots",
        "use_epass": "epass",
        **dict.fromkeys(("batch_size", "uratio", "queue_size")),
    }
    values: ClassVar = {**Method.values, "contrast": "loss_c"}
    state: ClassVar = {
        "queue_features": "align.last.features",
        "queue_probs": "align.last.probs",
        "pointer": "align.last.place",
        "queue": "align.usual.recent",
        "queue_pointer": "align.usual.place",
    }
    until: ClassVar = {"comatch/queue_not_whole": (1, "state.queue_features")}

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__(case)
        if "queue_not_whole" in case["name"]:
            last = self.algorithm.align.last
            self.algorithm.align.last = Ring(18, features=last.rows("features")[0], probs=last.rows("probs")[0])

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        original = "queue_size" in self.case["config"]
        options |= {"activation": "leaky-relu" if original else "relu", "alignment": "authors" if original else "usb"}
        return {**options, "queue_batches": 2, "width": 4, "start": 1}

    def progress(self, call: dict[str, Any], t: int) -> float:
        started = call["epoch"] > 0 and call.get("it", 99) > self.case["config"]["queue_batch"]
        return 0.5 * started

    def value(self, name: str, losses: Losses) -> Any:
        if name == "edges":
            probs = self.seen["align"]
            alike = (probs @ probs.T).fill_diagonal_(1.0)
            return (alike >= self.algorithm.align.config.tau_graph).sum(1).float().mean()
        if name == "state.batch_means":
            return self.algorithm.align.usual.recent[: len(self.expected)]
        return super().value(name, losses)


class SimMatchCase(ProjectedCase):
    config = SimMatch
    settings: ClassVar = {
        "in_loss_ratio": "lambda_in",
        "smoothing_alpha": "alpha",
        "da_len": "align_slots",
        "use_epass": "epass",
        "bank_momentum": "bank_momentum",
        "T_teacher": "temperature",
        "T_student": "temperature",
        **dict.fromkeys(("K", "labeled_total", "dataset")),
    }
    values: ClassVar = {**Method.values, "in": "loss_in"}
    state: ClassVar = {
        "bank": "align.embeddings",
        "bank_labels": "align.labels",
        "queue": "align.usual.recent",
        "queue_pointer": "align.usual.place",
    }

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__(case)
        if "teacher" in case["nets"]:
            self.teacher = Raw(self.algorithm.heads, 530, 630)

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        options |= {"width": 4, "start": 1, "bank_norm": "usb" if "usb_normalize" in self.case["name"] else "embedding"}
        if "T_teacher" in self.case["config"]:
            options |= {"teacher": "ema", "alignment": "authors", "bank_momentum": 0.0}
        return options

    def info(self) -> Info:
        return super().info()._replace(labeled_counts=torch.tensor([2, 2, 2, 1, 1]))

    def set(self, name: str, value: Any) -> None:
        """The bank has a column for each image there, and the class 0 for those that were not seen."""
        super().set(name, np.array(value).T.tolist() if name == "bank" else value)

    def progress(self, call: dict[str, Any], t: int) -> float:
        return 0.5 * (call["epoch"] > 0)

    def value(self, name: str, losses: Losses) -> Any:
        found = super().value(name, losses)
        return found.T if name == "state.bank" else found


class ReFixMatchCase(Method):
    config = ReFixMatch

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        self.usb = self.case["name"].endswith("/usb")
        return {**options, "variant": "usb" if self.usb else "authors"}

    def value(self, name: str, losses: Losses) -> Any:
        if name == "unsup" and not self.usb:
            return losses.log["loss_u"] + losses.log["loss_low"]
        return super().value(name, losses)


class SequenceMatchCase(FlexMatchCase):
    config = SequenceMatch
    unlabeled = ("weak", "medium", "strong")
    settings: ClassVar = {"thresh_warmup": None, "ulb_dest_len": None, "beta": None}
    values: ClassVar = {
        "ce": "loss_u",
        "kl_medium_weak": "kl_weak_medium",
        "kl_strong_medium": "kl_medium_strong",
        **Method.values,
        "kl_strong_weak": "kl_weak_strong",
    }

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        self.usb = self.case["name"].endswith("/usb")
        return {**options, "variant": "usb" if self.usb else "authors"}

    def value(self, name: str, losses: Losses) -> Any:
        if name == "unsup" and not self.usb:
            return losses.log["loss_u"] + losses.log["loss_seq"]
        return super().value(name, losses)


class FullMatchCase(Method):
    config = FullMatch
    values: ClassVar = {**Method.values, "negative": "loss_negative", "entropy": "loss_meaning", "k": "k"}

    def value(self, name: str, losses: Losses) -> Any:
        return losses.kept if name == "select" else super().value(name, losses)


class Given(nn.Module):
    """A head whose logits are given."""

    logits: Tensor

    def forward(self, features: Tensor) -> Tensor:
        return self.logits


class ShrinkMatchCase(Method):
    """`strong2` are the logits of the second head."""

    config = ShrinkMatch
    beside = ("strong2",)
    settings: ClassVar = {"threshold": "tau", "DA": "align", "da_len": "align_slots"}
    values: ClassVar = {**Method.values, "ratio": "ratio"}

    def make_net(self) -> nn.Module:
        net = Identity()
        net.heads = nn.ModuleDict({"shrink": Given()})
        return net

    def before(self, call: dict[str, Any], t: int) -> None:
        self.net.heads["shrink"].logits = self.views["strong2"]

    def value(self, name: str, losses: Losses) -> Any:
        if name == "shrink":  # before the running share
            return losses.log["loss_shrink"] / losses.log["ratio"]
        if name == "cut":
            _, cut, _ = cuts(self.seen["target"], self.algorithm.select.tau)
            return cut[losses.kept == 0]
        return super().value(name, losses)


class Mapped(nn.Module):
    """Images that are the last maps, or where they are pooled already the features; heads with the file's weights."""

    def __init__(self, heads: Any, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 5)
        self.heads = nn.ModuleDict(copy.deepcopy(dict(heads)))
        own = {"distance": [(0.25, 700), (0.1, 701)], "rotation": [(1, 710), (0.25, 711), (1, 712), (0.25, 713)]}
        with torch.no_grad():
            for part, recipe in ((self.linear, [(6, 500), (0.5, 501)]), *((h, own[n]) for n, h in self.heads.items())):
                for weight, (scale, seed) in zip(part.parameters(), recipe, strict=True):
                    weight.copy_(scale * torch.from_numpy(u(seed, *weight.shape)))

    def maps(self, x: Tensor) -> Tensor:
        return x

    def features(self, x: Tensor) -> Tensor:
        return x

    def head(self, f: Tensor) -> Tensor:
        return self.linear(f)


class CRMatchCase(Method):
    config = CRMatch
    settings: ClassVar = {"rotation": "w_rotation"}
    values: ClassVar = {**Method.values, "distance": "loss_distance", "rotation": "loss_rot"}

    def __init__(self, case: dict[str, Any]) -> None:
        self.shape = [int(n) for n in re.findall(r"\d+", re.search(r"feature map \[(.*?)\]", case["nets"]["maps"])[1])]
        self.beside = ("rot",) if case["config"]["rotation"] else ()
        super().__init__(case)
        self.algorithm.beside = lambda batch: [self.views[view] for view in self.beside]

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "w_rotation": float(options["w_rotation"])}

    def info(self) -> Info:
        channels, *size = self.shape
        return super().info()._replace(features=channels, maps=tuple(size) or None)

    def make_net(self) -> nn.Module:
        return Mapped(self.algorithm.heads, self.shape[0])

    def image(self, view: str, t: int) -> Tensor:
        inputs = self.case["inputs"]
        rows = self.case["B"] * (4 if view == "rot" else 1) if view in ("labeled", "rot") else self.case["M"]
        seed, amplitude = inputs["seed"] + 20 * t + CODES[view], inputs.get("amp", {}).get(view, 1.5)
        level = inputs.get("mean_amp", 1.0) * u64(seed + 10, rows, self.shape[0])
        maps = amplitude * u64(seed, rows, *self.shape) + level.reshape(rows, -1, *[1] * (len(self.shape) - 1))
        return torch.from_numpy(maps.astype(np.float32)).requires_grad_()

    def value(self, name: str, losses: Losses) -> Any:
        if name == "cosine":
            maps = (self.net.heads["distance"](self.views[view].flatten(1)) for view in ("weak", "strong"))
            return cosine(*maps)
        if name == "grad_heads":
            names = {"rotation": "rot_classifier", "distance": "ds_classifier"}
            found = {}
            for head, part in self.net.heads.items():
                for weight, p in part.named_parameters():
                    gradient = torch.zeros_like(p) if p.grad is None else p.grad
                    found[f"{names[head]}.{weight}"] = [float(gradient.sum()), float(gradient.abs().sum())]
            self.net.zero_grad()
            return found
        return super().value(name, losses)


class CGMatchCase(Method):
    config = CGMatch
    settings: ClassVar = {
        "queue_size": "votes",
        "warm_up_iter": "start",
        "lambda_h": "lambda_h",
        **dict.fromkeys(("n_sigma", "ulb_dest_len", "steps_total", "T")),
    }
    values: ClassVar = {**Method.values, "easy": "loss_u", "ambiguous": "loss_gce"}
    state: ClassVar = {
        "mu": "gaps.mu",
        "gap_mu": "gaps.gap_mu",
        "p_model": "align.p_model",
        "queue_labels": "gaps.past.labels",
        "queue_pointer": "gaps.past.place",
    }

    def info(self) -> Info:
        return super().info()._replace(steps=self.case["config"]["steps_total"])

    def set(self, name: str, value: Any) -> None:
        """Of the places that the warm-up does not fill the first class."""
        if name == "warm_up_labels":
            past, rows = self.algorithm.gaps.past, torch.arange(len(value[0]))
            past.labels.zero_()
            past.counts[:, 0] = past.labels.shape[1]
            for labels in value:
                past.write(rows, torch.tensor(labels))
        elif name != "warm_up_confidences":
            super().set(name, value)

    def progress(self, call: dict[str, Any], t: int) -> float:
        self.step = call["step"]
        return float(self.step / self.case["config"]["steps_total"])

    def value(self, name: str, losses: Losses) -> Any:
        gaps, config = self.algorithm.gaps, self.algorithm.gaps.config
        if name == "weight":
            share = (self.step - config.start) / (self.case["config"]["steps_total"] - config.start)
            assert self.expected == config.lambda_h * share**2
            return losses.log["loss_hard"] / losses.log["loss_gce"]
        if name in ("mask_easy", "mask_ambiguous"):
            return losses.kept if name == "mask_easy" else gaps.unsure
        if name == "count_gap":
            return gaps.past.gaps(self.index)
        return super().value(name, losses)

    def before(self, call: dict[str, Any], t: int) -> None:
        self.index = torch.tensor(call["index"])


class Boxed(Rng):
    """In place of the random numbers of a step: those that a case of a mix has."""

    def __init__(self, case: dict[str, Any], donors: list[float]) -> None:
        super().__init__(0, 0)
        self.kind, self.inputs, self.donors = case["name"].partition("mix_")[2], case["inputs"], donors
        self.centre = [self.inputs["centre_x"], self.inputs["centre_y"]]

    def generator(self, purpose: str) -> Any:
        return SimpleNamespace(
            beta=lambda a, b: self.inputs["beta"],
            integers=lambda n, centre=self.centre[:]: centre.pop(),
            random=lambda: {"class": 0.4, "any": 0.6, "self": 0.4}[self.kind],
        )

    def permutation(self, purpose: str, n: int) -> Tensor:
        """Of the one labeled image, which is not mixed, and the others."""
        return torch.tensor([0, *(1 + i for i in self.inputs["draws"])] if self.kind == "self" else range(n))

    def uniform(self, purpose: str, rows: int, *shape: int) -> Tensor:
        return torch.tensor(self.donors)


def mixes(case: dict[str, Any]) -> dict[str, Any]:
    """What RegMixMatch's mixes are with the images and draws of a case, under its names."""
    inputs, kind = case["inputs"], case["name"].partition("mix_")[2]
    assert kind in ("self", "class", "any"), f"{case['name']}: no such mix is known"
    assert case["config"] == {"crop_ratio": 0.9, "scope": [0.1, 0.8]}, f"{case['name']}: these are no options"
    n, size, y = inputs["images"], inputs["size"], torch.tensor(inputs.get("labels_high", [0]))
    probs = torch.tensor(inputs["probs"] if kind != "self" else np.eye(case["K"])[inputs["labels"]]).float()
    images, high = (torch.tensor(u(inputs["seed"] + i, k, 3, size, size)) for i, k in ((0, n), (1, len(y))))
    donors = [0.0] * n
    if kind == "any":
        donors = [(draw + 0.5) / len(y) for draw in inputs["draws"]]
    elif kind == "class":  # in the order of the classes, as the draws of the code
        guess, draws = probs.argmax(1), list(inputs["draws"])
        for j in guess.argsort(stable=True).tolist():
            if count := int((y == guess[j]).sum()):
                donors[j] = (draws.pop(0) % count + 0.5) / count
    nothing = torch.zeros(n, case["K"])
    index, progress = torch.arange(n), torch.tensor(0.5)
    batch = Batch((high,), y, (images, images), index, progress, Boxed(case, donors), torch.arange(len(y)))
    net: Any = Identity()
    seen = Seen((), Outputs(nothing, nothing), (), probs, batch, net, net, {}, torch.ones(n))
    told = Info(case["K"], (3, size, size), 6, torch.ones(case["K"]), n, STEPS, len(y), n)
    mixed, labels = Mixes(RegMixMatch(), told).mixed(seen, torch.full((n,), kind == "self"))
    return {
        "lam": drawn_box(batch.rng, "", 1.0, images).share((size, size)),
        "label": labels,
        "image_sums": mixed.double().sum((1, 2, 3)),
        "row5_channel1": mixed[:, 1, 5],
    }


MIXES = {"regmixmatch": mixes}
"""Methods whose cases are of their mixed images alone."""

METHODS: dict[str, type[Method]] = {
    "flexmatch": FlexMatchCase,
    "freematch": FreeMatchCase,
    "softmatch": SoftMatchCase,
    "adamatch": AdaMatchCase,
    "dash": DashCase,
    "defixmatch": DeFixMatchCase,
    "comatch": CoMatchCase,
    "simmatch": SimMatchCase,
    "refixmatch": ReFixMatchCase,
    "sequencematch": SequenceMatchCase,
    "fullmatch": FullMatchCase,
    "shrinkmatch": ShrinkMatchCase,
    "crmatch": CRMatchCase,
    "cgmatch": CGMatchCase,
}
