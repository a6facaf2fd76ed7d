"""The views of a batch's images: from the names that an algorithm asks for, or from `--augment`."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from fewlabels.augment.autoaugment import AutoAugment
from fewlabels.augment.ctaugment import CTAugment
from fewlabels.augment.named import medium_view, milder, moves_of, strong_view, weak_view
from fewlabels.augment.pixels import Shape
from fewlabels.augment.presets import Preset
from fewlabels.augment.randaugment import RandAugment
from fewlabels.augment.tokens import Token, parse
from fewlabels.augment.views import View
from fewlabels.types import Tokens, Views


class ViewSet(NamedTuple):
    """The views of a training."""

    views: nn.ModuleDict
    """The views by key; equal ones share a key."""
    labeled: tuple[str, ...]
    """For each labeled view of the algorithm, the key of `views`."""
    unlabeled: tuple[str, ...]
    """For each unlabeled view of the algorithm, likewise."""
    probe: str
    """Key of the weak view of labeled images: where CTAugment's probes begin."""

    @property
    def seen(self) -> list[nn.Module]:
        """The views that the algorithm sees."""
        return [self.views[key] for key in (*self.labeled, *self.unlabeled)]

    def learner(self) -> CTAugment | None:
        """The view that learns, if the algorithm sees it."""
        return next((view for view in self.seen if isinstance(view, CTAugment)), None)


def make_views(
    shape: Shape,
    names: Views,
    *,
    weak: str,
    strong: str,
    shift: int,
    cutout: bool = True,
    augment: str | None = None,
    algorithm: str = "",
    meaning: Tokens | None = None,
    policy: str = "cifar",
    stratified: bool = False,
) -> ViewSet:
    """The views that an algorithm asking for `names` gets.

    Args:
        shape: (C, H, W) of the images.
        weak, strong, shift, cutout, augment: as in `fewlabels.Train`; `weak` (with `augment`: what d stands for)
            and, without `augment`, `strong` must not be "auto".
        algorithm: its name, for sentences.
        meaning: what the tokens of `augment` mean to it.
        policy: AutoAugment's.
        stratified: RandAugment's.

    Raises ValueError for a view or token that there is not, for a number of tokens that does not fit the algorithm, for
    a strong part that it has no use for, for a shift as large as the image, and for `stratified` without RandAugment.
    """

    meaning = meaning or Tokens()

    def checked(views: ViewSet) -> ViewSet:
        if stratified and not any(isinstance(view, RandAugment) for view in views.seen):
            asked = f"--strong {strong}" if augment is None else f"--augment {augment}"
            who = algorithm or "the algorithm"
            raise ValueError(f"Train.stratified is for RandAugment, which {who} does not draw with {asked}")
        return views

    made: dict[str, View] = {}
    further = {name: parse(text)[0] for name, text in names.further}

    def look(where: Token, strong: Token | None) -> str:
        """Key of the view with `where`'s flip and shift, and what follows in `strong` or is usual."""
        base = weak if where.weak == "d" else where.weak
        usual = strong is not None and strong.strong is None
        if strong is None or (usual and not meaning.cta):
            made.setdefault(base, weak_view(base, shape, shift=shift))
            return base
        key = f"{base}+{'cta' if usual else strong.text}"
        if key not in made:
            made[key] = follow(base, strong)
        return key

    def follow(base: str, strong: Token) -> View:
        flip, moved, black = moves_of(base, shift)
        if strong.strong is None:
            square = cutout and meaning.cutout
            view = CTAugment(shape, flip, moved, cutout=square, black=black)
            first = next((v for v in made.values() if isinstance(v, CTAugment)), view)
            view.rates = first.rates  # one policy, however many views use it
            return view
        if strong.strong == "autoaugment":
            return AutoAugment(shape, flip, moved, policy, strong.cutout, black)
        return RandAugment(shape, flip, moved, strong.strong, strong.cutout, black, stratified)

    if augment is None:
        moves = moves_of(weak, shift)._asdict()
        views = {
            "weak": weak_view(weak, shape, shift=shift),
            "strong": strong_view(strong, shape, **moves, cutout=cutout, policy=policy, stratified=stratified),
        }
        if "medium" in names.unlabeled and "medium" not in further:
            options = {**moves, "cutout": cutout, "policy": policy, "stratified": stratified}
            views["medium"] = medium_view(strong, shape, **options)
        keys = {name: look(token, token if token.strong else None) for name, token in further.items()}
        views |= {name: made[key] for name, key in keys.items()}
        return checked(ViewSet(nn.ModuleDict(views), names.labeled, names.unlabeled, "weak"))

    tokens = parse(augment)
    _check_count(tokens, names, algorithm, meaning.wanted)
    last = tokens[-1]
    own = tokens[0] if tokens[0].strong is not None else None
    labeled = tuple(look(tokens[0], own or (last if n == "strong" else None)) for n in names.labeled)
    unlabeled = []
    for i, name in enumerate(names.unlabeled):
        if name in further:
            unlabeled.append(look(further[name], further[name] if further[name].strong else None))
            continue
        if name == "medium":
            preset = last.strong
            mild = last._replace(text=f"{last.text}/1", strong=milder(preset)) if isinstance(preset, Preset) else last
            unlabeled.append(look(tokens[min(i + 1, len(tokens) - 1)], mild))
            continue
        second = "strong" not in names.unlabeled and last.strong is not None and (i > 0 or len(tokens) == 2)
        acts = name == "strong" or second
        unlabeled.append(look(tokens[min(i + 1, len(tokens) - 1)], last if acts else None))
    probe = look(tokens[0], None)
    for token in tokens:
        if token.strong is not None and not any(key.endswith(f"+{token.text}") for key in made):
            raise ValueError(
                f"Train.augment {augment}: {algorithm} has no use for the strong part of {token.text} there; "
                "of the unlabeled views, the last token is for all strong ones"
            )
    return checked(ViewSet(nn.ModuleDict(made), labeled, tuple(unlabeled), probe))


def _check_count(tokens: tuple[Token, ...], names: Views, algorithm: str, count: int | None) -> None:
    """ValueError unless there is a token for the labeled images, the first unlabeled view and the further ones."""
    wanted = count or min(1 + len(names.unlabeled), 3)
    if len(tokens) == wanted or (not names.unlabeled and len(tokens) <= 3):
        return
    text = ".".join(token.text for token in tokens)
    words = "LABELED.UNLABELED" if wanted == 2 else "LABELED.UNLABELED.UNLABELED"
    raise ValueError(f"Train.augment must have {wanted} tokens for {algorithm} ({words}), got {text!r}")
