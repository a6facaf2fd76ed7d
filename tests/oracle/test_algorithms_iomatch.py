"""IOMatch beyond the golden steps: all of a step in NumPy, with alignment; what is FixMatch; ranks; what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import K, Plain, info, make_batch, softmax, the_same_on_ranks

from fewlabels.algorithms import FixMatch, IOMatch, Missing, OpenSet
from fewlabels.inference.model import Model

STEPS, ROWS = 5, 9


def made(config: Any, steps: int = STEPS) -> tuple[Any, Model]:
    algorithm = config.build(info(4, ROWS, steps))
    model, generator = Model(Plain(48), algorithm.heads), torch.Generator().manual_seed(3)
    with torch.no_grad():  # so that the classifiers have opinions
        for parameter in model.heads.parameters():
            parameter.uniform_(-0.7, 0.7, generator=generator)
    return algorithm, model


def weights(model: Model, name: str) -> list[Any]:
    return [p.detach().double().numpy() for p in model.heads[name].parameters()]


def log_softmax(z: Any) -> Any:
    return np.log(softmax(z))


@pytest.mark.parametrize("target", ["soft", "hard"])
@pytest.mark.parametrize("alignment", ["none", "uniform"])
def test_steps_image_by_image(target: Any, alignment: Any) -> None:
    """Five steps, of which the first two are before the open-set loss; the memory of batch means has three places."""
    config = IOMatch(
        tau=0.4,
        inlier=0.45,
        tau_open=0.6,
        lambda_u=0.5,
        w_ova=0.7,
        w_open=1.3,
        open_start=0.4,
        target=target,
        alignment=alignment,
        align_slots=3,
        width=7,
    )
    algorithm, model = made(config)
    a, b = (p.detach().double().numpy() for p in model.net.parameters())
    (w1, c1, w2, c2), (wr,), (wo, co) = (weights(model, name) for name in ("projector", "pairs", "open"))
    means, counted = np.zeros((3, K)), np.zeros(3)

    for t in range(STEPS):
        batch = make_batch(t, 4, ROWS, 2, progress=t / STEPS)
        losses = algorithm(batch, model, model)
        x, weak, strong = (np.tanh(view.double().numpy().reshape(len(view), -1) @ a) for view in (*batch.x, *batch.u))

        def projection(f: Any) -> Any:
            return w2 @ np.maximum(w1 @ f + c1, 0) + c2

        def pair(f: Any) -> Any:
            """[K, 2]: it is none of the class, it is."""
            z = wr @ projection(f)
            return np.stack([softmax(np.array([z[k], z[K + k]])) for k in range(K)])

        loss_x = loss_ova = 0.0
        for f, y in zip(x, batch.y.tolist(), strict=True):
            loss_x -= log_softmax(f @ b)[y] / 4
            r = pair(f)
            loss_ova += (-np.log(r[y, 1] + 1e-8) + max(-np.log(r[k, 0] + 1e-8) for k in range(K) if k != y)) / 4

        guesses = softmax(weak @ b)
        if alignment == "uniform":
            means[t % 3] = guesses.mean(0)
            guesses = guesses * (1 / K + 1e-6) / (means.sum(0) / 3 + 1e-6)
            guesses = guesses / guesses.sum(1, keepdims=True)
        loss_u = loss_open = 0.0
        known = []
        for p, f, g in zip(guesses, weak, strong, strict=True):
            r = pair(f)
            out = sum(p[k] * r[k, 0] for k in range(K))
            q = np.array([*(p[k] * r[k, 1] for k in range(K)), out])
            assert q.sum() == pytest.approx(1)
            known.append(1 - out)
            masks = np.array([p.max() >= 0.4, out <= 0.55, q.max() >= 0.6])
            counted += masks
            one, more = (p, q) if target == "soft" else (np.eye(K)[p.argmax()], np.eye(K + 1)[q.argmax()])
            loss_u -= masks[0] * masks[1] * (one @ log_softmax(g @ b)) / ROWS
            loss_open -= masks[2] * (more @ log_softmax(wo @ projection(g) + co)) / ROWS
        if t < 2:
            loss_open = 0.0
        total = loss_x + 0.5 * loss_u + 0.7 * loss_ova + 1.3 * loss_open
        expected = {"loss_x": loss_x, "loss_ova": loss_ova, "loss_u": loss_u, "loss_open": loss_open, "loss": total}
        assert {name: float(losses.log[name]) for name in expected} == pytest.approx(expected, rel=2e-5, abs=1e-6)
        assert losses.pseudo.tolist() == guesses.argmax(1).tolist()
        np.testing.assert_allclose(algorithm.openset.score[:ROWS], known, atol=1e-5)  # the newest, of no average
        assert float(losses.log["foreign"]) == pytest.approx(np.mean(np.array(known) < 0.45))
    assert ((counted > 0) & (counted < STEPS * ROWS)).all(), "the test needs images of either kind"
    _, (found,) = algorithm.remarks(["a"] * K), algorithm.findings(["a"] * K)
    assert found.result["threshold"] == pytest.approx(0.45)


def test_without_its_heads_it_is_fixmatch() -> None:
    batch = make_batch(0, 4, ROWS, 2)
    found = []
    settings: dict[str, Any] = {"tau": 0.4, "target": "soft"}
    for config in (IOMatch(inlier=0.0, w_ova=0.0, w_open=0.0, **settings), FixMatch(temperature=1.0, **settings)):
        algorithm, model = made(config)
        losses = algorithm(batch, model, model)
        losses.total.backward()
        found.append((losses.total.detach(), [p.grad for p in model.net.parameters()]))
        assert 0 < float(losses.log["mask"]) < 1
    torch.testing.assert_close(found[0], found[1])


def test_images_of_no_class_do_not_teach_the_net() -> None:
    """The net's own head has no gradient from them, and the body has that of the open-set head."""
    batch = make_batch(0, 4, ROWS, 2)
    algorithm, model = made(IOMatch(tau=0.0, inlier=1.0, tau_open=0.0))
    losses = algorithm(batch, model, model)
    assert float(losses.log["mask"]) == 0 == float(losses.log["loss_u"]) and float(losses.log["loss_open"]) > 0
    body, head = model.net.parameters()
    plain = copy.deepcopy(model)
    torch.nn.functional.cross_entropy(plain(batch.x[0]), batch.y).backward()
    losses.total.backward()
    own_body, own_head = plain.net.parameters()
    torch.testing.assert_close(head.grad, own_head.grad)
    assert not torch.allclose(body.grad, own_body.grad)  # type: ignore[arg-type]


def test_ranks_have_the_losses_and_gradients_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, model = made(IOMatch(tau=0.3, alignment="uniform", align_slots=2))
    losses, _, _ = the_same_on_ranks(monkeypatch, 2, algorithm, model, make_batch(0, 4, 10, 2))
    assert 0 < float(losses.log["mask"]) < 1


def test_another_way_with_images_of_no_class_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        IOMatch(openset=OpenSet("energy")).build(info(4, ROWS))
    assert str(caught.value) == (
        "IOMatch leaves out images of no class by heads of its own, and OpenSet.name energy would do so in another "
        "way: leave that at none"
    )


def test_the_parts_that_lower_its_threshold_go_with_it() -> None:
    """They see one `Threshold`, and what is left out is left out of their images, too."""
    batch = make_batch(0, 4, ROWS, 2)
    config = IOMatch(tau=0.4, inlier=0.45, missing=Missing("cadr", weighting="weighted"))
    algorithm, model = made(config)
    losses = algorithm(batch, model, model)
    foreign = algorithm.openset.score[:ROWS] < 0.45
    assert foreign.any() and not losses.kept[foreign].any() and losses.kept.any()
