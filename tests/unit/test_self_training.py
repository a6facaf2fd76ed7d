"""Self-training: the votes and the loss against NumPy, what teachers are refused, and a run without its teachers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewlabels as fl
from algorithm_cases import (
    K,
    build,
    info,
    killed_in,
    make_batch,
    opinionated,
    toy,
    toy_teacher,
    toy_training,
    with_heads,
)
from fewlabels.algorithms.self_training import soft_labels
from fewlabels.runs.run import Run, RunError

SHORT: dict[str, Any] = {"steps": 6, "save_every": 3, "eval_every": 6, "log_every": 6}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three runs on the labels of `toy`, that differ in their seeds, and hardly know what they see."""
    root = tmp_path_factory.mktemp("teachers")
    runs = [
        fl.train(toy_training(fl.Supervised(), seed=seed, **SHORT), out=root / str(seed), source=toy())
        for seed in (1, 2, 3)
    ]
    return [str(run.path) for run in runs]


def learner(teachers: Any, **changes: Any) -> Any:
    return toy_training(fl.SelfTraining(teachers=tuple(teachers)), **{**SHORT, **changes})


def test_soft_labels_are_the_shares_of_the_votes() -> None:
    votes = np.random.default_rng(0).integers(0, K, (9, 4))
    expected = np.zeros((9, K))
    for image, row in enumerate(votes):
        for vote in row:
            expected[image, vote] += 1 / 4
    np.testing.assert_allclose(soft_labels(torch.tensor(votes), K), expected, rtol=1e-6)
    one = soft_labels(torch.tensor(votes[:, :1]), K)
    assert one.dtype == torch.float32 and torch.equal(one.argmax(1), torch.tensor(votes[:, 0]))
    assert torch.equal(one.amax(1), torch.ones(9))


def test_the_loss_image_by_image() -> None:
    """And the gradient of the last layer, ``(p - target) f`` for each image."""
    rng = np.random.default_rng(1)
    algorithm = build(fl.SelfTraining(teachers=("a", "b"), weight=0.7), info(3, 5))
    votes = rng.integers(0, K, (100, 2))
    algorithm.votes.copy_(torch.tensor(votes))
    batch, net = make_batch(algorithm, 3, 5), with_heads(opinionated(), algorithm)
    losses = algorithm(batch, net, net)
    losses.total.backward()

    w, b = (p.detach().double().numpy() for p in net.net.linear.parameters())
    with torch.no_grad():
        x, u = (net.features(view).double().numpy() for view in (batch.x[0], batch.u[0]))
    told = [np.eye(K)[y] for y in batch.y.tolist()]
    told += [(np.eye(K)[votes[row, 0]] + np.eye(K)[votes[row, 1]]) / 2 for row in batch.index.tolist()]
    value, gradient = [0.0, 0.0], np.zeros_like(w)
    for i, (f, target) in enumerate(zip([*x, *u], told, strict=True)):
        e = np.exp(w @ f + b - (w @ f + b).max())
        p, scale = e / e.sum(), 1 / 3 if i < 3 else 0.7 / 5
        value[i >= 3] += -(target * np.log(p)).sum() / (3 if i < 3 else 5)
        gradient += scale * np.outer(p - target, f)
    assert [float(losses.log[name]) for name in ("loss_x", "loss_u")] == pytest.approx(value, rel=1e-5)
    assert float(losses.total.detach()) == pytest.approx(value[0] + 0.7 * value[1], rel=1e-5)
    np.testing.assert_allclose(net.net.linear.weight.grad, gradient, rtol=1e-4, atol=1e-6)
    assert len(set(batch.index.tolist())) > 2 and value[1] > 0.1


def test_a_vote_for_the_label_is_the_label() -> None:
    """Where all teachers are right about images that have labels, soft labels and labels teach the same."""
    algorithm = build(fl.SelfTraining(teachers=("a", "b", "c")), info(4, 4))
    batch, net = make_batch(algorithm, 4, 4), with_heads(opinionated(), algorithm)
    batch = batch._replace(u=batch.x, index=torch.arange(4))
    algorithm.votes[:4] = batch.y[:, None]
    log = algorithm(batch, net, net).log
    assert float(log["loss_u"]) == pytest.approx(float(log["loss_x"]), rel=1e-6)


@pytest.mark.slow
def test_votes_of_a_training(teachers: list[str], tmp_path: Path) -> None:
    """By what each teacher predicts for each picture, through the public interface; labeled ones keep their label."""
    said: list[str] = []
    from fewlabels.training.loop import Output

    run = fl.train(learner(teachers), out=tmp_path / "run", source=toy(), output=Output(say=said.append))
    votes, split = np.load(run.path / "votes.npy"), run.split
    labels = dict(zip(split.labeled.tolist(), split.targets.tolist(), strict=True))
    guesses = [fl.load(teacher).predict(toy().images) for teacher in teachers]
    expected = [[labels.get(row, int(guess[row])) for guess in guesses] for row in split.unlabeled.tolist()]
    assert votes.tolist() == expected and set(labels) <= set(split.unlabeled.tolist())
    others = [row for row in split.unlabeled.tolist() if row not in labels]
    agree = np.mean([len({int(guess[row]) for guess in guesses}) == 1 for row in others])
    right = [100 * np.mean([int(guess[row]) == toy().labels[row] for row in others]) for guess in guesses]
    assert 0.05 < agree < 0.95, "the teachers must differ"
    assert (
        f"votes on {len(others)} unlabeled images: all teachers agree on {100 * agree:.1f} %; the data know their "
        f"classes, and {', '.join(f'{share:.1f}' for share in right)} % are right"
    ) in said
    told = json.loads((run.path / "data.json").read_text())["teachers"]["runs"]
    assert [each["run"] for each in told] == [str(Path(t).resolve()) for t in teachers]
    assert all(each["step"] == 6 and len(each["weights"]) == 64 for each in told)


@pytest.mark.slow
def test_it_goes_on_without_its_teachers(teachers: list[str], tmp_path: Path) -> None:
    """Bit for bit, when they are gone; and not with other votes."""
    copies = [shutil.copytree(teacher, tmp_path / f"teacher-{i}") for i, teacher in enumerate(teachers)]
    config = learner(map(str, copies))
    whole = fl.train(config, out=tmp_path / "whole", source=toy())
    killed_in(4, config, tmp_path / "run")
    for folder in copies:
        shutil.rmtree(folder)
    votes = tmp_path / "run" / "votes.npy"
    data = votes.read_bytes()
    votes.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RunError, match=r"votes.npy has changed since .*/run was started: put it back"):
        fl.resume(tmp_path / "run", source=toy())
    votes.unlink()
    with pytest.raises(RunError, match=r"/run is incomplete: votes.npy is missing"):
        fl.resume(tmp_path / "run", source=toy())
    votes.write_bytes(data)
    run = fl.resume(tmp_path / "run", source=toy())
    assert data == (whole.path / "votes.npy").read_bytes()
    for name in ("weights.safetensors", "state.pt"):
        assert (run.checkpoint().path / name).read_bytes() == (whole.checkpoint().path / name).read_bytes()


def refusal(config: Any, out: Path, source: Any = None) -> str:
    with pytest.raises(ValueError) as caught:
        fl.train(config, out=out, source=source or toy(), overwrite=True)
    assert not (out / "config.json").exists() or Run(out).finished
    return str(caught.value)


def test_teachers_that_are_refused(teachers: list[str], tmp_path: Path) -> None:
    one = teachers[0]
    out = tmp_path / "run"
    nobody = "SelfTraining.teachers must be the folders of one or more finished runs on the same split"
    assert refusal(dataclasses.replace(learner(teachers), algorithm=fl.SelfTraining()), out) == nobody
    again = f"{Path(one).parent}/../{Path(one).parent.name}/{Path(one).name}"
    assert refusal(learner([one, again]), out) == f"SelfTraining.teachers names {again} twice: each run has one vote"
    assert refusal(learner([str(tmp_path / "none")]), out) == f"there is no run folder {tmp_path / 'none'}"
    copy = shutil.copytree(one, tmp_path / "copy")
    taking = refusal(learner([str(copy)]), copy)
    assert taking == f"the new run would take the place of its teacher {copy}: name another --out"
    assert (copy / "result.json").is_file()
    (copy / "result.json").unlink()
    sentence = f"the teacher {copy} is not finished: `fewlabels train --resume {copy}` goes on with it"
    assert refusal(learner([one, str(copy)]), out) == sentence

    other = refusal(learner([one], data=fl.Data("arrays", labels=12, seed=2)), out)
    assert other.startswith(f"the teacher {one} was trained on another split ({Run(one).split.fingerprint[:8]}) than ")
    assert other.endswith(f"add --data.split {one}/split.json") and "\n" not in other
    renamed = fl.from_arrays(toy().images, toy().labels, classes=("a", "b", "z"))
    names = refusal(learner([one]), out, renamed)
    assert names == f"the teacher {one} has other classes than the new run: 0, 1, 2, and not a, b, z"


@pytest.mark.slow
def test_a_teacher_with_its_own_net_and_features(tmp_path: Path) -> None:
    """Only what it says counts: another net, and one that sees other scales of the pixels."""
    config = learner([toy_teacher()], net=fl.Net("small-4"))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, normalize="minus-one-one"))
    run = fl.train(config, out=tmp_path / "run", source=toy())
    votes, rows = np.load(run.path / "votes.npy")[:, 0], run.split.unlabeled
    unlabeled = ~np.isin(rows, run.split.labeled)
    assert (votes == toy().labels[rows])[unlabeled].mean() > 0.9
