"""RegMixMatch beyond the golden cases of its mixes: the two losses, boxes, partners, and what is in no mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import the_same_on_ranks
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm_cases import K, info, make_batch, opinionated
from fewlabels.algorithms import FreeMatch, OpenSet, RegMixMatch
from fewlabels.algorithms.regmixmatch import box, picked, shuffled
from fewlabels.inference.model import Model
from fewlabels.runtime import parallel
from fewlabels.types import Batch

ROWS = 10


def step(config: Any, batch: Batch) -> tuple[Any, Any, list[Any]]:
    """The algorithm's losses, its net, and the mixed images with their labels, if there are any."""
    algorithm: Any = config.build(info(4, ROWS))
    net, kept = Model(opinionated(), {}), []
    if mixes := getattr(algorithm, "term_loss_mix", None):
        plain = mixes.mixed

        def watched(seen: Any, certain: Any) -> Any:
            kept.extend((*plain(seen, certain), certain))
            return kept[0], kept[1]

        mixes.mixed = watched
    return algorithm(batch, net, net), net, kept


def batch_of(seed: int = 0) -> Batch:
    return make_batch(RegMixMatch().build(info(4, ROWS)), 4, ROWS, seed)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


@pytest.mark.parametrize("many", [1, 100])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_losses_of_the_mixed_images(many: int, seed: int) -> None:
    """Image by image in NumPy; the mixes themselves are pinned by the golden cases."""
    batch = batch_of(seed)
    losses, net, (images, labels, certain) = step(RegMixMatch(tau_m=0.45, many_labels=many), batch)
    assert 0 < certain.sum() < ROWS and len(images) == ROWS + 4 * (many == 1)
    with torch.no_grad():
        z, own = net(images).double().numpy(), net(batch.u[0]).double().numpy()
    mixed, first = 0.0, len(images) - ROWS
    errors, cubes = [], []
    for i in range(len(images)):
        p, label = softmax(z[i]), labels[i].double().numpy()
        if i < first or certain[i - first]:
            mixed -= float(label @ np.log(p))
        else:
            errors.append(((p - label) ** 2).mean())
            cubes.append(softmax(own[i - first]).max() ** 3)
    assert float(losses.log["loss_srm"]) == pytest.approx(mixed / ROWS, rel=1e-5)
    assert float(losses.log["loss_cam"]) == pytest.approx(np.mean(errors) * np.mean(cubes), rel=1e-5)
    assert float(losses.log["certain"]) == pytest.approx(float(certain.float().mean()))


def gradients(config: Any, batch: Batch) -> tuple[float, dict[str, Any]]:
    losses, net, _ = step(config, batch)
    losses.total.backward()
    return float(losses.total.detach()), {name: p.grad.clone() for name, p in net.named_parameters()}


def test_without_its_weights_it_is_freematch() -> None:
    batch = batch_of()
    (one, of_one), (two, of_two) = gradients(RegMixMatch(w_srm=0.0, w_cam=0.0), batch), gradients(FreeMatch(), batch)
    assert one == two and all(torch.equal(of_one[name], of_two[name]) for name in of_two)


def test_the_weights_are_of_their_losses() -> None:
    """Loss and gradients are linear in both weights."""
    batch, found = batch_of(), {}
    for srm, cam in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        found[srm, cam] = gradients(RegMixMatch(tau_m=0.45, w_srm=srm, w_cam=cam), batch)
    none, one, other = (found[pair] for pair in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))
    assert min(one[0], other[0]) > none[0]
    assert found[2.0, 3.0][0] == pytest.approx(2 * one[0] + 3 * other[0] - 4 * none[0], rel=1e-5)
    for name, gradient in found[2.0, 3.0][1].items():
        expected = 2 * one[1][name] + 3 * other[1][name] - 4 * none[1][name]
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau_m", [0.0, 1.0])
def test_all_images_or_none_are_certain(tau_m: float) -> None:
    losses, _, (_, labels, certain) = step(RegMixMatch(tau_m=tau_m), batch_of())
    assert bool((certain == (tau_m == 0)).all()) and bool(losses.total.isfinite())
    assert float(losses.log["loss_cam" if tau_m == 0 else "loss_srm"]) == 0
    torch.testing.assert_close(labels.sum(1), torch.ones(ROWS))


def test_images_that_are_set_aside_are_in_no_mix() -> None:
    aside = OpenSet("energy", by="value", threshold=1e5, start=0.0)
    losses, _, (_, _, certain) = step(RegMixMatch(tau_m=0.0, openset=aside), batch_of())
    assert float(losses.log["foreign"]) == 1 and not certain.any() and float(losses.log["loss_mix"]) == 0


@pytest.mark.parametrize("many", [1, 100])
def test_partners_are_of_any_rank(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """Without the fairness term, whose gradient the threads do not share."""
    monkeypatch.setattr(parallel, "joined", lambda x: parallel.gather(x))
    algorithm = RegMixMatch(tau_m=0.45, many_labels=many, w_fairness=0.0).build(info(4, ROWS))
    for seed in (0, 1):
        losses, _, _ = the_same_on_ranks(monkeypatch, 2, algorithm, Model(opinionated(), {}), batch_of(seed))
        assert 0 < float(losses.log["certain"]) < 1


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1), st.data())
def test_a_box_is_inside(height: int, width: int, share: float, data: st.DataObject) -> None:
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    found = box(height, width, share, row, column)
    assert 0 <= found.top <= found.bottom <= height and 0 <= found.left <= found.right <= width
    area = (found.bottom - found.top) * (found.right - found.left)
    assert area <= (0.1 + 0.7 * share**0.5) ** 2 * height * width + 1e-9
    assert (
        found.share((height, width)) == pytest.approx(1 - area / (height * width)) and found.share((height, width)) > 0
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_partners_are_the_members_in_the_order_that_was_drawn(members: list[bool], chance: Any) -> None:
    order = list(range(len(members)))
    chance.shuffle(order)
    partner = shuffled(torch.tensor(members), torch.tensor(order)).tolist()
    found = [partner[i] for i, member in enumerate(members) if member]
    assert found == [i for i in order if members[i]]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True, width=32))
def test_one_of_those_that_are_allowed_is_picked(allowed: list[bool], draw: float) -> None:
    found, place = picked(torch.tensor([allowed]), torch.tensor([draw]))
    places = [i for i, each in enumerate(allowed) if each]
    assert bool(found) == bool(places)
    if places:  # in float32, as the draws are
        assert int(place) == places[min(int(np.float32(draw) * np.float32(len(places))), len(places) - 1)]


@pytest.mark.slow
def test_donors_are_of_the_predicted_class_in_half_of_the_steps() -> None:
    """Where a donor is, the label has nothing but the guess and the donor's class; to four standard errors."""
    steps, same = 24, 0
    assert K > 2
    for seed in range(steps):
        batch = batch_of(seed)
        _, net, (_, labels, _) = step(RegMixMatch(tau_m=1.0), batch)
        with torch.no_grad():
            probs = net(batch.u[0]).softmax(1)
        grown = (labels > probs + 1e-6) | (probs > 1 - 1e-6)
        moved = ~torch.isclose(labels, probs).all(1)
        own = grown.gather(1, probs.argmax(1, keepdim=True))[:, 0]
        same += bool(own[moved].all())
    assert abs(same - steps / 2) < 4 * (steps / 4) ** 0.5
