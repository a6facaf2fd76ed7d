"""`Train` and its parts: the one place where a setting's name, type, default, unit and range is written.

The command line, config.json, the printed summary and the checks all come from these dataclasses.
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

import tyro
from torch import nn

from fewlabels import nets
from fewlabels.algorithms import ALGORITHMS, AnyAlgorithm, FixMatch
from fewlabels.augment import tokens
from fewlabels.data.protocol import Options, Prior, Rule
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.fields import Main
from fewlabels.runtime.urls import check_bare, is_url

Classes = Annotated[
    tuple[int | str, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="CLASS,...",
        instance_from_str=lambda args: tuple(word.strip() for word in args[0].split(",") if word.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]
"""Class numbers or names, separated by commas on the command line; none mean all."""

Shares = Annotated[
    tuple[float, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="SHARE,...",
        instance_from_str=lambda args: tuple(float(word) for word in args[0].split(",") if word.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]
"""Numbers, separated by commas on the command line."""

Pretrained = Annotated[
    bool | str,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="True|FILE|RUN",
        instance_from_str=lambda args: {"true": True, "false": False}.get(args[0].lower(), args[0]),
        is_instance=lambda value: isinstance(value, bool | str),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""Whether to fetch weights, or a file of them."""

SPLIT = Options()
"""Defaults of what is said to the rule of a split."""

if TYPE_CHECKING:
    Choice: TypeAlias = AnyAlgorithm
else:  # the same union, with the names that the command line knows
    Choice = Union[tuple(Annotated[cls, tyro.conf.subcommand(name=name)] for name, cls in ALGORITHMS.items())]  # noqa: UP007


@dataclass(frozen=True)
class Data(Checked):
    """What to learn from: a named data set or a folder, and which of its labels are known."""

    name: Annotated[str, Main] = "digits@40"
    """`NAME.SEED@SIZE-VALID` (all but NAME optional), such as `cifar10.3@250-1`, or a folder (or
    `.zip` file) with `CLASS/`, or with `labeled/CLASS/`, `unlabeled/` and `test/CLASS/`, a table `FILE.csv` (path,
    label, split), a `.tfrecord` file, tar files, here or at a URL (`s3://bucket/prefix`), or `hf:OWNER/NAME` of the
    Hugging Face hub."""
    _: KW_ONLY
    root: str | None = None
    """Folder of the named data sets; default `$ML_DATA`, else the platform's cache folder."""
    shard_cache: Annotated[float | None, Range(0, None, low_open=True)] = None
    """GB (10^9 bytes) that the copies of tar files at URLs may take together, in the cache folder; default: what its
    disk has free."""
    labels: Annotated[int | None, Range(1, None)] = None
    """Labels to keep in all (SIZE of the name), or of the largest class with `imbalance`; default: every one."""
    seed: Annotated[int | None, Range(0, 2**32 - 1)] = None
    """Seed of the split (SEED of the name); default 1; 0 takes the first images of each class."""
    valid: Annotated[int | None, Range(0, None)] = None
    """Validation images (VALID of the name), taken from the unlabeled stream; default 0, in a folder of pictures
    its validation part, or where it has no test part either a tenth of each class."""
    rule: Rule | None = None
    """Whose rule picks the labels: `fixmatch` follows the class histogram, `balanced` takes as many of each
    class, `cadr` and `usb` make long tails, `realmix` takes the labels out of the unlabeled set; default: what
    the name says, else `fixmatch`."""
    unlabeled: str | None = None
    """Whether the unlabeled set contains the labeled images (`all`, as in FixMatch) or not (`rest`); default:
    `rest` under `realmix`, else `all`."""
    imbalance: Annotated[float | None, Range(1, None)] = SPLIT.imbalance
    """How many times as many labels the first class gets as the last (gamma; `cadr` and `usb`)."""
    imbalance_unlabeled: Annotated[float | None, Range(1, None)] = SPLIT.imbalance_unlabeled
    """The same for the unlabeled images (`cadr` and `usb`)."""
    imbalance_test: Annotated[float | None, Range(1, None)] = SPLIT.imbalance_test
    """The same for the test images."""
    head_unlabeled: Annotated[int | None, Range(1, None)] = SPLIT.head_unlabeled
    """Unlabeled images of the largest class (`usb`); default: all that are left."""
    reverse: bool = SPLIT.reverse
    """Turn the tail of the unlabeled and test images round: the last class is the largest."""
    prior: Prior = SPLIT.prior
    """Shares of the classes: as in the data, random by the seed (`cadr`), or taken in turn (`realmix`)."""
    candidates: Annotated[int | None, Range(1, None)] = SPLIT.candidates
    """Pick labels among this many first images only (`realmix`)."""
    keep_labeled: Classes = SPLIT.keep_labeled
    """Classes, by number or name, whose labels are kept after the pick; default: all."""
    keep_unlabeled: Classes = SPLIT.keep_unlabeled
    """Classes whose unlabeled images are kept."""
    keep_test: Classes = SPLIT.keep_test
    """Classes whose test images are kept."""
    remap: bool = SPLIT.remap
    """Give the net outputs for the classes of `keep_labeled` only."""
    oversample: Annotated[int | None, Range(1, 2**24)] = SPLIT.oversample
    """Repeat labeled images of small classes, and drop some of large ones, up to this many in all (rounded up to
    the same number of each class)."""
    resample: bool = SPLIT.resample
    """Repeat the labeled images of each class up to the number of the largest (`cadr`)."""
    split: str | None = None
    """JSON file of `fewlabels split` (or a run's split.json) whose images are taken."""
    normalize: Literal["auto", "minus-one-one", "mean-std", "measured", "imagenet"] = "auto"
    """Scaling of the pixels; `auto`: what a pretrained net of timm or torchvision is used to, else the named set's
    mean and std, measured ones for own images."""
    image_size: Annotated[int | None, Range(4, 4096)] = None
    """Side in pixels to which own images are brought; default: chosen from the images."""
    fit: Literal["crop", "pad", "centre", "inner"] = "crop"
    """How: `crop` resizes the shorter side and cuts out the centre, `pad` resizes the longer side and fills up
    with black, `centre` cuts out the centre without resizing, `inner` cuts out 7/8 at the centre and resizes that."""
    crop: Literal["none", "area", "area-flip"] = "none"
    """What a training sees of a picture in a step: all of it, or a crop of random area (8 to 100 %) of the file as it
    is, drawn before decoding and shared by all views of the picture; `area-flip` mirrors half of them. The pictures
    then stay in their files."""
    bits: Annotated[int, Range(8, 16)] = 16
    """Bits that grey pictures of 16 bits use (12 for values up to 4095); the highest 8 of them are kept."""
    max_pixels: Annotated[int, Range(1, None)] = 89_478_485
    """Pixels of a picture that is still read; larger ones count as unreadable."""
    labeled: str | None = None
    """Folder of the labeled pictures, in place of `labeled/` in the folder that `name` is."""
    test: str | None = None
    """Folder of the test pictures, in place of `test/`."""
    label_from: Literal["folder", "suffix"] = "folder"
    """Whether the class is the folder of a picture or the end of its name (`12_cat.png`)."""
    classes: str | None = None
    """JSON file of display names: {"folder or number": "name"}, or a list."""
    skip_corrupt: bool = False
    """Go on without the image files that cannot be read, instead of stopping before the training."""
    residency: Literal["auto", "device", "host", "stream"] = "auto"
    """Where the images live: `device`, in the memory of what trains; `host`, gathered for each step; `stream`, in
    their files, decoded for each step; `auto`: the first in which they take at most half of what is free."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_url(self.name):
            check_bare("Data.name", self.name)
        if self.crop != "none" and self.residency in ("device", "host"):
            raise ValueError(
                f"Data.crop {self.crop} is cut from picture files in each step, which Data.residency {self.residency} "
                "does not keep: use auto or stream"
            )

    def alone(self) -> Data:
        """These settings without the options that a command has added to them in a subclass."""
        return Data(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Data)})


@dataclass(frozen=True)
class Net(Checked):
    """The network."""

    name: Annotated[str, Main] = "wrn-28-2"
    """`wrn-DEPTH-WIDTH`, `wrn-DEPTH-WIDTH-tf` (the original's form), `small`, `cnn13`, `convnet`, `shake`, `resnet18`
    or `resnet50`, each perhaps with `-WIDTH`, `resnext-DEPTH-CxD`, `timm:NAME`, `torchvision:NAME`."""
    _: KW_ONLY
    stages: Annotated[int | None, Range(1, 8)] = None
    """Scales of the image, each half the one before; default: what the name says (3, mostly)."""
    blocks: Annotated[int | None, Range(1, 1000)] = None
    """Residual blocks per stage; default: what the name says."""
    width: Annotated[int | None, Range(1, 100_000)] = None
    """Channels of the first stage, 16 times the WIDTH of a `wrn`; default: what the name says."""
    dropout: Annotated[float, Range(0, 1, high_open=True)] = 0.0
    """Probability of dropping a feature."""
    slope: Annotated[float | None, Range(0, 1)] = None
    """Slope of the leaky ReLU on the negative side; default: the net's own (0.1; cnn13 and convnet 0.2)."""
    bn_momentum: Annotated[float | None, Range(0, 1)] = None
    """Weight of the newest batch in the running statistics; default: the net's own."""
    freeze_bn: bool = False
    """Batch normalisation keeps the statistics of the learned weights, and normalises with them in training too, so
    that neither small batches nor pictures of another size move them; its scale and shift learn."""
    patch: Annotated[int | None, Range(1, None)] = None
    """Side in pixels of the patches of a ViT (`timm:`); default: its own."""
    pretrained: Pretrained = False
    """Start from learned weights, with a new head: `True` for those of timm or torchvision, a local .safetensors or
    .pth file of the same net, or a run folder, for its averaged weights."""

    train: nets.Learning = "all"
    """What learns: all of the net; its `head` alone, the last linear layer; or with `lora` the head and bypasses of low
    rank beside the linear layers of attention and MLP (`timm:`). The body then stays as its learned weights are, and
    checkpoints name it and do not hold it."""
    rank: Annotated[int, Range(1, 1024)] = 4
    """Rank of the bypasses of `lora`."""
    alpha: Annotated[float | None, Range(0, low_open=True)] = None
    """Weight of the bypasses of `lora`: they count with the factor alpha / rank; default: the rank, a factor of 1."""
    head: Literal["new", "probe", "kept"] = "new"
    """How the last linear layer starts: as the net has it, as a logistic regression on the features of the labeled
    images (`probe`), or as in the run that `pretrained` names, if it has the same classes (`kept`)."""
    drop_path: Annotated[float, Range(0, 1, high_open=True)] = 0.0
    """Share of images that skip the last residual block in a step, growing from 0 at the first one (`timm:`)."""
    recompute: bool = False
    """Keep of each block its input only, and compute the rest anew in the backward pass (activation checkpointing):
    less memory for a step that takes about a third longer (nets of `timm:` without batch norm)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank", "alpha") if self.train != "lora" else ():
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise ValueError(f"Net.{name} {value:g} is for Net.train lora, not for {self.train}")
        if self.drop_path and self.train == "head":
            raise ValueError(f"Net.drop_path {self.drop_path:g} is for a body that learns, not for Net.train head")
        if self.recompute and self.train == "head":
            raise ValueError("Net.recompute is for a body that learns, not for Net.train head")

    def whole(self) -> Net:
        """The net of a state dict that holds all of it, merged."""
        own = type(self)
        return dataclasses.replace(self, train="all", rank=own.rank, alpha=own.alpha)

    def check(self) -> None:
        """Raises the ValueError of `build` for what has nothing to do with the images."""
        nets.check_parts(self.name, lora=self.train == "lora", drop_path=self.drop_path, recompute=self.recompute)
        if self.train != "all" and not self.pretrained:
            raise ValueError(
                f"Net.train {self.train} leaves the body of the net as it is, which then must be a learned one: give "
                "Net.pretrained True or a file of weights"
            )
        if self.head == "probe" and not self.pretrained:
            raise ValueError(
                "Net.head probe is fitted to the features of a learned net: give Net.pretrained True or a file of "
                "weights"
            )
        if self.freeze_bn and not self.pretrained:
            raise ValueError(
                "Net.freeze_bn keeps the statistics of learned weights: give Net.pretrained True or a file of weights"
            )
        if self.freeze_bn and self.train != "all":
            raise ValueError(
                f"Net.freeze_bn is for a body that learns; with Net.train {self.train} its statistics stay anyway"
            )
        if self.freeze_bn and self.bn_momentum is not None:
            raise ValueError(
                f"Net.bn_momentum {self.bn_momentum:g} is of statistics that move, and Net.freeze_bn, which recipes "
                "set for learned nets, keeps them: give freeze_bn=False (--net.no-freeze-bn) with it"
            )
        if self.head == "kept" and not isinstance(self.pretrained, str):
            raise ValueError("Net.head kept is the last layer of a run: give the run folder as Net.pretrained")
        nets.check(self.name, pretrained=self.pretrained, **self._options())

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("stages", "blocks", "width", "slope", "patch")}

    def build(self, classes: int, shape: tuple[int, int, int], *, blank: bool = False) -> nn.Module:
        """The net at its start, for images of `shape` (C, H, W); `blank`: the weights of what learns will be loaded
        from a run."""
        net = nets.build(
            self.name,
            classes=classes,
            shape=shape,
            dropout=self.dropout,
            bn_momentum=self.bn_momentum,
            drop_path=self.drop_path,
            **self._options(),
            pretrained=False if blank and self.train == "all" else self.pretrained,
        )
        if self.train == "lora":
            nets.adapt(net, self.rank, self.alpha)
        return net


@dataclass(frozen=True)
class Optim(Checked):
    """The optimizer and its schedule; weights of norm layers and biases are not decayed."""

    name: Annotated[Literal["sgd", "adam", "adamw"], Main] = "sgd"
    """`sgd` with momentum; `adam` with the decay in the gradient; `adamw` with the decay apart from it."""
    _: KW_ONLY
    lr: Annotated[float, Range(0, None, low_open=True)] = 0.03
    """Learning rate at the start (after the warm-up)."""
    momentum: Annotated[float, Range(0, 1, high_open=True)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's form of the momentum."""
    weight_decay: Annotated[float, Range(0, None)] = 5e-4
    """L2 decay of convolution and linear weights; with `adamw` they shrink by lr * weight_decay in each step."""
    beta1: Annotated[float, Range(0, 1, high_open=True)] = 0.9
    """Decay of Adam's mean of the gradients."""
    beta2: Annotated[float, Range(0, 1, high_open=True)] = 0.999
    """Decay of Adam's mean of their squares."""
    decay_bias: bool = False
    """Decay the bias of the last linear layer too."""
    schedule: Literal["cosine", "linear", "stairs", "constant"] = "cosine"
    """`cosine` is FixMatch's lr * cos(7 pi k / 16 K), which ends at 0.195 lr; `linear` ends at `lr_end`; `stairs`
    multiplies by `stair` at each of `stairs`."""
    stairs: Shares = ()
    """Shares of the steps after which the `stairs` schedule goes down, ascending, such as 0.3,0.6,0.9."""
    stair: Annotated[float, Range(0, 1, low_open=True, high_open=True)] = 0.1
    """Factor of the learning rate at each of `stairs`."""
    lr_end: Annotated[float, Range(0, None)] = 0.0
    """Learning rate at the end of the `linear` schedule."""
    warmup: Annotated[int, Range(0, 10**12)] = 0
    """Steps of linear warm-up from 0."""
    layer_decay: Annotated[float, Range(0, 1, low_open=True)] = 1.0
    """Factor of the learning rate from each layer to the one before it, for pretrained ViTs (0.5 to 0.8)."""
    body: Annotated[float, Range(0, None, low_open=True)] = 1.0
    """Factor of the learning rate of everything below the head, for pretrained nets (0.01 to 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_end and self.schedule != "linear":
            raise ValueError(f"Optim.lr_end {self.lr_end:g} is for the schedule linear, not for {self.schedule}")
        if self.schedule == "stairs":
            apart = all(a < b for a, b in pairwise((0.0, *self.stairs, 1.0)))
            if not self.stairs or not apart:
                got = ",".join(f"{share:g}" for share in self.stairs) or "none"
                raise ValueError(f"Optim.stairs must be shares of the steps between 0 and 1, ascending, got {got}")
        elif self.stairs or self.stair != type(self).stair:
            what = (
                f"stairs {','.join(f'{share:g}' for share in self.stairs)}" if self.stairs else f"stair {self.stair:g}"
            )
            raise ValueError(f"Optim.{what} is for the schedule stairs, not for {self.schedule}")
        other = ("beta1", "beta2") if self.name == "sgd" else ("momentum", "nesterov")
        for name in other:
            if (value := getattr(self, name)) != getattr(type(self), name):
                theirs = "adam and adamw" if self.name == "sgd" else "sgd"
                raise ValueError(f"Optim.{name} {value} is for {theirs}, not for {self.name}")


@dataclass(frozen=True, kw_only=True)
class Ema(Checked):
    """The exponential moving average of the weights, which is the model that gets evaluated."""

    decay: Annotated[float, Range(0, 1, high_open=True)] = 0.999
    """Weight of the old average in each step."""
    warmup: bool = False
    """Start with the smaller decay (1 + t) / (10 + t), for short runs."""
    buffers: Literal["live", "averaged"] = "live"
    """Batch-norm statistics of the average: the live ones of the net, or averaged like the weights."""
    when: Literal["after", "before"] = "after"
    """Whether the average takes in the weights after or before the optimizer's step."""


@dataclass(frozen=True, kw_only=True)
class Curriculum(Checked):
    """What costs less in the first steps of a training than later."""

    half_size: Annotated[float, Range(0, 1)] = 0.0
    """Share of the steps, from the first, in which the net sees views of half the height and width, each pixel the mean
    of four: a quarter of the work."""
    uratio: Annotated[int | None, Range(1, None)] = None
    """Unlabeled images per labeled one at first, which grow to `Train.uratio` over the first half of the steps (after
    Fast FixMatch, arXiv:2309.03469); default: `Train.uratio` from the start."""


@dataclass(frozen=True, kw_only=True)
class Train(Checked):
    """A training, whole: with the data it determines every number of the result."""

    algorithm: Choice = field(default_factory=FixMatch)
    """The algorithm and its own settings."""
    data: Data = field(default_factory=Data)
    """The images and which labels are known."""
    net: Net = field(default_factory=Net)
    """The network."""
    optim: Optim = field(default_factory=Optim)
    """The optimizer and its schedule."""
    ema: Ema = field(default_factory=Ema)
    """The moving average of the weights."""
    curriculum: Curriculum = field(default_factory=Curriculum)
    """What costs less at first."""
    steps: Annotated[int, Range(0, 10**12)] = 2**20
    """Training steps; 0 for an algorithm that is fitted before the first one (`frozen`)."""
    batch: Annotated[int, Range(1, None)] = 64
    """Labeled images per step, over all devices."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images per labeled one in each step."""
    accumulate: Annotated[int, Range(1, None)] = 1
    """Turns in which a step's batch goes through the net, each with an equal share of it, for a GPU that has not the
    memory for all of it. The gradients are added; batch norm and the algorithm's running numbers see each share."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 1
    """Seed of the initial weights, of the order of the images and of the augmentation."""
    weak: Literal["auto", "ms", "s", "m", "x", "affine", "ms:zero", "s:zero"] = "auto"
    """Weak view: m mirrors, s shifts, ms both, x neither; `:zero` shifts in black instead of a reflection; `auto`:
    what suits the data set."""
    shift: Annotated[int | None, Range(0, None)] = None
    """Largest shift of the weak view in pixels; default: what suits the data set."""
    strong: Literal[
        "auto",
        "rand:kekmodel",
        "rand:leedoyup",
        "rand:google",
        "rand:imagenet",
        "cta",
        "cta:imagenet",
        "autoaugment",
        "cutout",
        "affine",
        "none",
    ] = "auto"
    """Strong view: RandAugment as one of four code bases has it, CTAugment, AutoAugment, cutout alone, small affine
    moves; `auto`: what suits the data set."""
    cutout: bool = True
    """Whether the strong view ends with its cutout, if it has one."""
    augment: str | None = None
    """The views in the words of google-research/fixmatch, such as `d.d.rac`: labeled, unlabeled, further unlabeled
    (docs/augmentation.md); in place of `strong`, and `weak` is then what `d` stands for."""
    stratified: bool = False
    """RandAugment draws each operation equally often in a batch, in random order."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Precision of the net's forward and backward; `auto`: bf16 on a GPU that has it, else fp32; tf32: float32 whose
    products have 10 bits, on a GPU."""
    compile: bool = False
    """Compile the step with torch.compile (a minute at the start, faster steps)."""
    graph: bool = False
    """Record the step as a CUDA graph, after some steps, and replay it; for algorithms that draw no random numbers."""
    deterministic: bool = False
    """Only deterministic GPU kernels: slower, the same bits every time. The CPU always is."""
    sync_bn: bool = False
    """Batch-norm statistics over all GPUs instead of each GPU's own."""
    eval_every: Annotated[int, Range(1, None)] = 1024
    """Steps between evaluations; the last step always evaluates."""
    save_every: Annotated[int, Range(1, None)] = 1024
    """Steps between checkpoints; the last step always saves."""
    log_every: Annotated[int, Range(1, None)] = 64
    """Steps over which logged values are averaged."""
    keep: Annotated[int, Range(1, None)] = 2
    """Newest checkpoints to keep, beside the best one."""
    log: Literal["none", "wandb", "mlflow"] = "none"
    """Where the curves go beside metrics.jsonl and TensorBoard: to Weights & Biases (`fewlabels[wandb]`) or MLflow
    (`fewlabels[mlflow]`)."""

    def __post_init__(self) -> None:
        algorithm: Any = self.algorithm
        outside = not isinstance(algorithm, type | AnyAlgorithm)
        if outside and dataclasses.is_dataclass(algorithm) and hasattr(algorithm, "build"):
            # from outside the package: no member of the union, which is what the command line offers
            object.__setattr__(self, "algorithm", FixMatch())
        super().__post_init__()
        object.__setattr__(self, "algorithm", algorithm)
        if not self.steps and not self.fits:
            raise ValueError(
                f"Train.steps must be at least 1 for {algorithm_name(algorithm)}, which learns in steps alone, got 0"
            )
        if self.net.head != "new" and self.fits:
            raise ValueError(
                f"Net.head {self.net.head} is not for {algorithm_name(algorithm)}, which fits the head itself"
            )
        if self.optim.body != 1 and self.net.train == "head":
            raise ValueError(f"Optim.body {self.optim.body:g} is for a body that learns, not for Net.train head")
        if self.curriculum.half_size and self.net.train == "head":
            raise ValueError(
                f"Curriculum.half_size {self.curriculum.half_size:g} is for a body that learns, not for Net.train head"
            )
        if (images := self.batch * (1 + self.uratio)) > 2**24:
            what = f"Train.batch {self.batch} with Train.uratio {self.uratio}"
            raise ValueError(f"{what} means {images:,} images in each step; {2**24:,} are the most")
        if (self.curriculum.uratio or 0) > self.uratio:
            raise ValueError(
                f"Curriculum.uratio {self.curriculum.uratio} is where it begins, and cannot be above Train.uratio "
                f"{self.uratio}"
            )
        if self.augment is not None:
            tokens.check(self.augment, weak=self.weak, strong=self.strong, cutout=self.cutout)

    @property
    def fits(self) -> bool:
        """Whether the algorithm fits the last layer before the first step."""
        return bool(getattr(self.algorithm, "fits", False))


def algorithm_name(algorithm: object) -> str:
    """The command-line name of an algorithm's config (the class name in lower case for one of the user's own)."""
    return name_of(type(algorithm))


def name_of(cls: type) -> str:
    """The same of its class."""
    return str(getattr(cls, "name", cls.__name__.lower()))
