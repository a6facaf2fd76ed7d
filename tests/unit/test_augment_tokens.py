"""`--augment`: the grammar, which image gets which view, and what the training makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewlabels as fl
from fewlabels.algorithms import ALGORITHMS
from fewlabels.augment import AutoAugment, CTAugment, Identity, RandAugment, ViewSet, Weak, make_views
from fewlabels.augment.tokens import parse
from fewlabels.commands.train_options import read
from fewlabels.config.plain import from_dict, to_dict
from fewlabels.config.resolve import resolve
from fewlabels.config.settings import Train
from fewlabels.data.source import Source, Style
from fewlabels.data.split import make_split
from fewlabels.runtime.rng import Rng
from fewlabels.training.step import Trainer
from fewlabels.types import Info, Tokens, Views

SHAPE = (3, 16, 16)
# AUGMENT_ENUM of libml/augment.py, without its rac1, and the two primitives
FIXED = [f"r{n}_{m}_{c}" for n in range(1, 5) for m in range(1, 16) for c in range(0, 100, 25)]
TOKENS = [*["d", "x", "m", "s", "ms", "aa", "aac", "ra", "rac"], *(f"rac{m}" for m in range(2, 10)), *FIXED]


def test_every_token_is_read() -> None:
    assert len(TOKENS) == 257
    assert [t.text for t in parse(".".join(TOKENS))] == TOKENS


@pytest.mark.parametrize(
    "word", ["", "rac1", "rac10", "r5_1_0", "r0_1_0", "r1_16_0", "r1_0_0", "r1_1_10", "r1_01_0", "D", "c", "cta"]
)
def test_other_words_are_not(word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {word!r} in 'd.{word}.d'")) as error:
        Train(augment=f"d.{word}.d")
    assert str(error.value).startswith("Train.augment must be tokens joined by dots, each one of d, x, m, s, ms, aa, ")
    assert str(error.value).count(".") <= 5  # one sentence, without its end


@pytest.mark.slow
@given(st.text(alphabet="dxmsarc_0123456789.", max_size=12))
@settings(deadline=None, max_examples=200)
def test_anything_is_read_or_refused(text: str) -> None:
    known = all(word in TOKENS for word in text.split("."))
    try:
        tokens = parse(text)
    except ValueError:
        assert not known
    else:
        assert known and ".".join(t.text for t in tokens) == text


def test_presets_of_the_tokens() -> None:
    by_name = {t.text: t for t in parse("ra.rac.rac4.r3_7_25.r1_15_0")}
    presets = {name: t.strong for name, t in by_name.items()}
    assert all(p is not None and not isinstance(p, str) for p in presets.values())
    assert {n: (p.slots, p.probability, p.levels) for n, p in presets.items()} == {  # type: ignore[union-attr]
        "ra": (2, 0.5, (1, 9)),
        "rac": (2, 0.5, (1, 9)),
        "rac4": (2, 0.5, (1, 3)),
        "r3_7_25": (3, 1.0, (7, 7)),
        "r1_15_0": (1, 1.0, (15, 15)),
    }
    assert {n: t.cutout for n, t in by_name.items()} == {
        "ra": False,
        "rac": True,
        "rac4": True,
        "r3_7_25": True,
        "r1_15_0": False,
    }
    box = presets["r3_7_25"].boxes(np.random.default_rng(0), 99, (3, 96, 50))  # type: ignore[union-attr,misc]
    assert set((box[:, 2:] - box[:, :2] + 1).ravel()) == {12}  # int(0.25 * 50)


def looks(algorithm: Any, augment: str, **changes: Any) -> ViewSet:
    settings: dict[str, Any] = {"weak": "s", "strong": "auto", "shift": 2, "algorithm": algorithm.name, **changes}
    info = Info(4, SHAPE, 8, torch.ones(4, dtype=torch.int64), 100, 10, 8, 8)
    built = algorithm.build(info)
    return make_views(SHAPE, built.views, augment=augment, meaning=built.tokens, **settings)


def words(looks: ViewSet, key: str) -> str:
    """A view in the words of docs/augmentation.md; what `d` stands for is `s` here."""
    base, _, strong = key.partition("+")
    view = looks.views[key]
    text = [{"s": "d"}.get(base, base)]
    if strong == "cta":
        assert isinstance(view, CTAugment)
        text += ["CTAugment", "cutout"][: 1 + view.cutout]
    elif strong:
        assert isinstance(view, RandAugment) and isinstance(view, AutoAugment) == strong.startswith("aa")
        text.append(strong)
    else:
        assert base == "x" or isinstance(view, Weak)
    return " + ".join(text)


def rows() -> list[list[str]]:
    text = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text()
    table = text.partition("<!-- looks -->")[2].partition("<!-- end looks -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


NAMES: dict[str, Any] = dict(ALGORITHMS)
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "--second-view strong": {"second_view": "strong"},
    "--strong-views 2": {"strong_views": 2},
    "--labeled-view strong": {"labeled_view": "strong"},
    "--anchoring strong.strong": {"anchoring": "strong.strong"},
}


assert len(rows()) > 20


@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row[:2]))
def test_table_of_the_docs(row: list[str]) -> None:
    name, _, options = row[0].partition(" ")
    made = looks(NAMES[name](**OPTIONS[options]), row[1])
    assert ", ".join(words(made, key) for key in made.labeled) == row[2]
    assert ", ".join(words(made, key) for key in made.unlabeled) == row[3]


@pytest.mark.parametrize(
    ("algorithm", "augment", "message"),
    [
        (fl.FixMatch(), "d.d", r"must have 3 tokens for fixmatch \(LABELED.UNLABELED.UNLABELED\), got 'd.d'"),
        (fl.FixMatch(), "d.rac.d.rac", "must have 3 tokens for fixmatch"),
        (NAMES["vat"](), "d.d.d", r"must have 2 tokens for vat \(LABELED.UNLABELED\), got 'd.d.d'"),
        (NAMES["pi-model"](), "d.rac.d", "pi-model has no use for the strong part of rac there"),
        (NAMES["ict"](), "d.d.rac", "ict has no use for the strong part of rac there"),
        (fl.Supervised(), "d.d.rac", "supervised has no use for the strong part of rac there"),
    ],
)
def test_tokens_that_do_not_fit(algorithm: Any, augment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        looks(algorithm, augment)


def test_tokens_beside_other_settings() -> None:
    with pytest.raises(ValueError, match=r"Train.augment d.d.rac .* Train.strong cta"):
        Train(augment="d.d.rac", strong="cta")
    with pytest.raises(ValueError, match=r"Train.augment x.m.s .* Train.weak ms, which names what the token d"):
        Train(augment="x.m.s", weak="ms")
    with pytest.raises(ValueError, match=r"Train.cutout cannot be False: the token ra says"):
        Train(augment="d.d.ra", cutout=False)
    assert Train(augment="d.x.x", weak="s", cutout=False).augment == "d.x.x"


def test_cutout_of_the_usual_strong_view() -> None:
    made = looks(fl.FixMatch(), "d.d.d", cutout=False)
    assert words(made, made.unlabeled[1]) == "d + CTAugment"


def test_supervised_baseline_takes_the_tokens_of_another_run() -> None:
    made = looks(fl.Supervised(view="strong"), "d.d.rac")
    assert [words(made, key) for key in made.labeled] == ["d + rac"]


def test_one_policy_for_all_its_views() -> None:
    """Views that begin differently share the rates of CTAugment, also after a checkpoint was read."""
    made = looks(NAMES["remixmatch"](labeled_view="strong"), "m.d.d")
    first, second = (made.views[key] for key in (made.labeled[0], made.unlabeled[1]))
    assert isinstance(first, CTAugment) and isinstance(second, CTAugment) and first is not second
    assert (first.weak.shift, second.weak.shift) == (0, 2) and first.rates is second.rates
    state = {k: torch.full_like(v, 0.5) for k, v in made.views.state_dict().items()}
    made.views.load_state_dict(state)
    learner = made.learner()
    assert learner is first and float(second.rates.max()) == 0.5 and made.probe == "m"
    probe = learner.probe(Rng(0, 0), 8, "x")
    learner.learn(probe.everyone, np.zeros(8))
    assert torch.equal(first.rates, second.rates) and float(second.rates.min()) < 0.5


def test_policy_is_the_data_sets() -> None:
    for policy, count in (("cifar", 95), ("svhn", 40)):
        made = looks(fl.FixMatch(), "d.d.aa", policy=policy)
        view = made.views[made.unlabeled[1]]
        assert isinstance(view, AutoAugment) and len(view.policies) == count and view.boxes is None


def source(name: str = "noise") -> Source:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    return Source(name, ("a", "b", "c"), images, np.arange(30) % 3, images[:0], np.arange(0), Style(weak="s", shift=2))


def trainer(short: Callable[..., Train], kind: str = "fixmatch", /, name: str = "noise", **changes: Any) -> Trainer:
    images = source(name)
    config = resolve(short(kind, **{"weak": "auto", "strong": "auto", "shift": None, **changes}), images)
    split = make_split(images, labels=6, seed=1)
    return Trainer(config, images, split, device=torch.device("cpu"), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.slow
def test_training_in_either_words(short: Callable[..., Train]) -> None:
    pairs: list[tuple[str, dict[str, Any]]] = [
        ("d.d.rac", {"strong": "rand:google"}),
        ("d.d.d", {"strong": "cta"}),
        ("x.x.x", {"weak": "x", "strong": "cta"}),
        ("ms.ms.aac", {"weak": "s", "strong": "autoaugment"}),
    ]
    for augment, plain in pairs:
        one, other = trainer(short, augment=augment), trainer(short, **plain)
        for step in range(2):
            one.step(step)
            other.step(step)
        same = [torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)]
        assert all(same) == (augment != "ms.ms.aac"), augment  # its last token begins with d, as all policies do
        assert (one.batches.learner is None) == (plain["strong"] != "cta")


def test_probe_begins_with_a_weak_view(short: Callable[..., Train]) -> None:
    """Where the labeled view is strong, what CTAugment tries is tried on a weak one: here on the image itself."""
    images = source()
    stored = {image.tobytes() for image in images.images}
    t = trainer(short, "supervised", weak="x", strong="cta", algorithm=fl.Supervised(view="strong"))
    assert t.batches.learner is not None
    policy = t.batches.learner.probe(Rng(0, 0), 4, "x")
    policy.policy.member[:] = 8  # the identity
    t.batches.learner.probe = lambda *_: policy  # type: ignore[method-assign]
    batch = t.batch(0)
    for x, known in ((t.batches.probe[1], True), (batch.x[0], False)):
        pixels = ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        assert all(np.ascontiguousarray(a).tobytes() in stored for a in pixels) == known


@pytest.mark.slow
def test_rates_know_how_probes_went_four_steps_later(short: Callable[..., Train]) -> None:
    """So that no step waits for the one before; the original's worker processes are as late."""
    t = trainer(short, strong="cta", steps=12)
    learner = t.batches.learner
    assert learner is not None
    expected = CTAugment(learner.shape, flip=False, shift=0)
    probes = []
    for step in range(9):
        rows = len(t.batch(step).y)
        assert t.batches.probe is not None
        probes.append(t.batches.probe[0].everyone)
        t.batches.learn(step, torch.full((rows,), step / 10))
        if step >= 4:
            expected.learn(probes[step - 4], np.full(rows, np.float32((step - 4) / 10)))
        assert torch.equal(learner.rates, expected.rates)
    assert float(learner.rates.max()) == 1 and not torch.equal(learner.rates, CTAugment(learner.shape, False, 0).rates)
    assert torch.equal(t.state()["views"]["strong.heard"][:, 0], torch.tensor([0.8, 0.5, 0.6, 0.7]))


def test_svhn_has_its_own_policy(short: Callable[..., Train]) -> None:
    for name, count in (("svhn_noextra", 40), ("cifar10", 95)):
        view = trainer(short, name=name, strong="autoaugment").batches.views["strong"]
        assert isinstance(view, AutoAugment) and len(view.policies) == count


def test_resolved_settings_go_through_json(short: Callable[..., Train]) -> None:
    for augment, weak in (("d.d.rac", "s"), ("x.x.x", "auto")):
        config = resolve(short(weak="auto", strong="auto", augment=augment), source())
        assert (config.weak, config.strong, config.shift) == (weak, "auto", 2)
        assert from_dict(to_dict(config)) == config == resolve(config, source())


def test_notes_on_channels(short: Callable[..., Train]) -> None:
    made = make_views((5, 8, 8), Views(), weak="x", strong="", shift=0, augment="d.d.rac", algorithm="fixmatch")
    assert [view.colours for view in made.views.values()] == [False, True]  # type: ignore[union-attr]
    assert trainer(short, augment="d.d.rac").notes() == []


@pytest.mark.slow
def test_command_line_has_the_last_word() -> None:
    """What a recipe says of the views does not stand in the way of `--augment`."""
    args = ["fixmatch", "--recipe", "leedoyup-fixmatch-cifar10"]
    config = read([*args, "--augment", "d.d.rac"]).train
    assert (config.augment, config.weak, config.strong) == ("d.d.rac", "auto", "auto")
    assert read(args).train.strong == "rand:leedoyup"


@pytest.mark.parametrize(
    ("algorithm", "views", "words"),
    [
        ("fixmatch", {"strong": "cta"}, "with --strong cta"),
        ("mixmatch", {"strong": "rand:kekmodel"}, "with --strong rand:kekmodel"),
        ("fixmatch", {"augment": "d.d.d"}, "with --augment d.d.d"),
    ],
)
def test_stratified_draws_need_randaugment(algorithm: str, views: dict[str, Any], words: str) -> None:
    unlabeled = ("weak", "strong") if algorithm == "fixmatch" else ("weak", "weak")
    with pytest.raises(ValueError) as error:
        make_views(
            SHAPE, Views(("weak",), unlabeled), weak="ms", shift=2, algorithm=algorithm, stratified=True,
            **{"strong": "auto", **views},
        )  # fmt: skip
    assert str(error.value) == f"Train.stratified is for RandAugment, which {algorithm} does not draw {words}"


def test_stratified_draws_of_tokens_and_of_the_supervised_baseline() -> None:
    for views in ({"strong": "rand:kekmodel"}, {"strong": "auto", "augment": "d.d.rac"}):
        for wanted in (Views(("weak",), ("weak", "strong")), Views(("strong",), ())):
            name = "fixmatch" if wanted.unlabeled else "supervised"
            looks = make_views(SHAPE, wanted, weak="ms", shift=2, algorithm=name, stratified=True, **views)
            assert [v.stratified for v in looks.views.values() if isinstance(v, RandAugment)] == [True]


@pytest.mark.parametrize("augment", [None, "d.d.rac"])
def test_views_of_an_algorithms_own(augment: str | None) -> None:
    """Named and spelled by the algorithm, they begin with the flip and shift that the weak view has."""
    wanted = Views(unlabeled=("weak", "medium", "plain", "strong"), further=(("medium", "r1_10_25"), ("plain", "x")))
    strong = "rand:kekmodel" if augment is None else "auto"
    made = make_views(SHAPE, wanted, weak="ms", strong=strong, shift=2, augment=augment, meaning=Tokens(3))
    weak, medium, plain, last = (made.views[key] for key in made.unlabeled)
    assert isinstance(medium, RandAugment) and isinstance(weak, Weak)
    assert (medium.weak.flip, medium.weak.shift) == (weak.flip, weak.shift) == (True, 2)
    assert (medium.preset.slots, medium.preset.levels) == (1, (10, 10)) and medium.boxes is not None
    assert isinstance(plain, Identity)
    assert isinstance(last, RandAugment) and last.preset.slots == 2
    with pytest.raises(ValueError, match="must be tokens joined by dots"):
        make_views(SHAPE, Views(further=(("medium", "r9"),)), weak="ms", strong="none", shift=2)


def test_a_medium_view_has_one_operation_of_the_strong_one() -> None:
    names, shape = Views(unlabeled=("weak", "medium", "strong")), (3, 32, 32)
    for strong in ("rand:kekmodel", "rand:leedoyup", "rand:google"):
        made: Any = make_views(shape, names, weak="ms", strong=strong, shift=4)
        medium, full = (made.views[made.unlabeled[i]] for i in (1, 2))
        assert medium.preset == full.preset._replace(slots=1, probability=1.0) and full.preset.slots > 1
        assert (medium.boxes is None) == (full.boxes is None) and medium.weak.shift == full.weak.shift == 4
        assert medium.weak.black == full.weak.black and medium.weak.flip and full.weak.flip
    tokens: Any = make_views(shape, names, weak="ms", strong="auto", shift=4, augment="d.d.rac")
    medium, full = (tokens.views[tokens.unlabeled[i]] for i in (1, 2))
    assert medium.preset == full.preset._replace(slots=1, probability=1.0) and medium.weak.shift == full.weak.shift


def test_a_medium_view_of_small_moves_has_half_of_them() -> None:
    names = Views(unlabeled=("weak", "medium", "strong"))
    made: Any = make_views((1, 8, 8), names, weak="affine", strong="affine", shift=1)
    medium, full = (made.views[made.unlabeled[i]] for i in (1, 2))
    known = {k: v for k, v in vars(full).items() if isinstance(v, float) and v}
    assert known and all(vars(medium)[k] == pytest.approx(v / 2) for k, v in known.items())
