"""Two gloo ranks on the CPU against one process: one pair for all the tests here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from two_ranks import MISSING, SAME, STEPPED, STEPS, main, step_without_norm, train_bypasses, train_without_norm

import fewlabels as fl
from algorithm_cases import SHAPE, START_LOW
from fewlabels import nets
from fewlabels.runs.run import Run
from forked_ranks import Rank, free_port

pytestmark = pytest.mark.slow


class Worlds(NamedTuple):
    one: Path
    """Runs of one process."""
    two: Path
    """Runs of two ranks, and what each of them said."""
    output: list[str]
    """Everything else that the ranks printed."""

    def answers(self, what: str) -> list[dict[str, Any]]:
        return [json.loads((self.two / f"answers{rank}.json").read_text())[what] for rank in (0, 1)]


def fill(folder: Path) -> None:
    """What one process and two ranks make of the same trainings."""
    one, two = folder / "one", folder / "two"
    two.mkdir()
    torch.manual_seed(0)
    body = nets.build("timm:test_vit", classes=3, shape=SHAPE, patch=4)
    safetensors.torch.save_file(body.state_dict(), two / "body.safetensors")
    port = free_port()
    ranks = [Rank(folder, r, port, partial(main, two), environment={"LOCAL_RANK": str(r)}) for r in (0, 1)]
    train_without_norm(one)
    torch.save(step_without_norm(), folder / "stepped.pt")
    train_bypasses(one, two / "body.safetensors")
    ended = [rank.end(600) for rank in ranks]
    assert [code for code, _ in ended] == [0, 0], ended
    output = [(folder / f"rank{r}.out").read_text() + err for r, (_, err) in enumerate(ended)]
    (folder / "output.json").write_text(json.dumps(output))


@pytest.fixture(scope="module")
def worlds(once: Callable[[str, Callable[[Path], None]], Path]) -> Worlds:
    folder = once("worlds", fill)
    return Worlds(folder / "one", folder / "two", json.loads((folder / "output.json").read_text()))


def numbers(log: dict[str, Any]) -> dict[str, float]:
    """Logged values by name, those by class one by one."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in log.items()}
    return {f"{name}{i}": number for name, values in lists.items() for i, number in enumerate(values)}


@pytest.mark.parametrize("name", SAME)
def test_same_global_batch_same_losses_weights_and_state(worlds: Worlds, name: str) -> None:
    one, two = Run(worlds.one / name), Run(worlds.two / name)
    logs, others = one.metrics("log"), two.metrics("log")
    assert len(logs) == len(others) == STEPS
    losses = [key for key in logs[0] if key not in ("kind", "step", "step_ms", "data_ms")]
    assert "loss" in losses and "lr" in losses
    for a, b in zip(logs, others, strict=True):
        ours, theirs = ({key: log[key] for key in losses} for log in (a, b))
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)
    if "mask" in losses and name not in START_LOW | {"sequencematch"}:
        assert any(0 < r["mask"] < 1 for r in logs)  # or the unlabeled half of the step was not there to differ
    last, other = one.checkpoint(), two.checkpoint()
    assert last.step == other.step == STEPS and other.meta()["world"] == 2
    for which in ("raw", "ema"):
        for key, value in last.weights(which).items():
            torch.testing.assert_close(other.weights(which)[key], value, rtol=0, atol=1e-5)
    for part in ("algorithm", "views"):
        state, same = last.state()[part], other.state()[part]
        assert state.keys() == same.keys()
        for key, value in state.items():
            torch.testing.assert_close(same[key], value, rtol=0, atol=1e-5, equal_nan=True)


def test_bypasses_and_a_fitted_head_are_those_of_one_process(worlds: Worlds) -> None:
    one, two = (Run(world / "lora").checkpoint() for world in (worlds.one, worlds.two))
    for which in ("raw", "ema"):
        mine, theirs = one.weights(which), two.weights(which)
        assert mine.keys() == theirs.keys() and len(mine) == 2 + 2 * 24
        for key, value in mine.items():
            torch.testing.assert_close(theirs[key], value, rtol=0, atol=1e-5)
        assert all(bool(value.any()) for key, value in mine.items() if key.endswith("lora_b"))


def test_rank_0_lists_what_is_foreign(worlds: Worlds) -> None:
    lists = [(world / "openset" / "foreign.csv").read_text().splitlines() for world in (worlds.one, worlds.two)]
    one, two = ({line.split(",")[0]: line.split(",")[2:] for line in lines} for lines in lists)
    assert one == two and len(one) == 301 and "yes" in {aside for aside, _ in one.values()}


@pytest.fixture(scope="module")
def stepped(worlds: Worlds) -> list[Any]:
    """Of one process and of each of two ranks."""
    files = (worlds.one.parent / "stepped.pt", *(worlds.two / f"stepped{rank}.pt" for rank in (0, 1)))
    return [torch.load(file, weights_only=True) for file in files]


@pytest.mark.parametrize("name", [*STEPPED, *MISSING])
def test_same_steps_with_every_option(stepped: list[Any], name: str) -> None:
    one, *ranks = (world[name] for world in stepped)
    assert "loss" in one["logs"][0] and one["state"]
    if name in MISSING:
        prior = torch.tensor([log["prior"] for log in one["logs"]])
        assert len(prior) == 20 and (prior[-1] - 1 / 3).abs().max() > 0.01, "the estimate has moved"
    for rank in ranks:
        torch.testing.assert_close(rank["logs"], one["logs"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rank["state"], one["state"], rtol=0, atol=1e-5, equal_nan=True)


def test_the_states_that_were_compared_are_there(worlds: Worlds) -> None:
    saved = Run(worlds.one / "remixmatch").checkpoint()
    assert {"align.recent", "align.p_data"} <= set(saved.state()["algorithm"])
    assert {"net.linear.weight", "heads.rotation.weight"} <= set(saved.weights("ema"))
    rates = [v for k, v in Run(worlds.two / "cta").checkpoint().state()["views"].items() if "rates" in k]
    assert rates and any((r != r.flatten()[0]).any() for r in rates)  # CTAugment has learned something


def test_evaluations_are_those_of_one_process(worlds: Worlds) -> None:
    for name in SAME:
        a, b = (Run(root / name).metrics("eval")[-1]["test"]["ema"] for root in (worlds.one, worlds.two))
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert abs(b["accuracy"] - a["accuracy"]) < 1.0


def test_ranks_agree_with_batch_norm(worlds: Worlds) -> None:
    nets = [torch.load(worlds.two / f"norm{rank}.pt", weights_only=True) for rank in (0, 1)]
    saved = Run(worlds.two / "norm").checkpoint()
    for which in ("raw", "ema"):
        assert nets[0][which].keys() == nets[1][which].keys() and any("running" in key for key in nets[0][which])
        for key, value in nets[0][which].items():
            assert torch.equal(value, nets[1][which][key]), f"{which} {key} differs between the ranks"
            assert torch.equal(value, saved.weights(which)[key])


def test_resume_with_as_many_ranks_is_bit_exact(worlds: Worlds) -> None:
    whole, resumed = (Run(worlds.two / name) for name in ("norm", "resumed"))
    a, b = whole.checkpoint(), resumed.checkpoint()
    assert (a.path / "weights.safetensors").read_bytes() == (b.path / "weights.safetensors").read_bytes()
    records = [
        [{k: v for k, v in r.items() if not k.endswith("_ms")} for r in run.metrics()] for run in (whole, resumed)
    ]
    assert records[0] == records[1]


def test_a_run_of_two_ranks_is_used_like_any_other(worlds: Worlds, tmp_path: Path) -> None:
    copy = shutil.copytree(worlds.two / "trained", tmp_path / "run")
    classifier = fl.load(copy)
    assert classifier.predict(torch.zeros(2, 8, 8, 1, dtype=torch.uint8)).shape == (2,)


def test_only_rank_0_talks(worlds: Worlds) -> None:
    lead, other = worlds.answers("trained")
    assert lead["code"] == other["code"] == 0
    assert "fixmatch on digits@40: 40 labeled" in lead["out"] and "step 40/40" in lead["err"]
    assert other["out"] == other["err"] == ""
    assert worlds.output[1] == ""


def test_a_signal_to_one_rank_stops_both(worlds: Worlds) -> None:
    lead, other = worlds.answers("stopped")
    assert lead["code"] == other["code"] == 143
    path = worlds.two / "stopped"
    assert lead["err"] == (
        f"fewlabels: stopped by SIGTERM after step 10 of 40; the state is saved, and `fewlabels train --resume {path}` "
        "goes on from it\n"
    )
    assert other["err"] == "" and Run(path).checkpoint().step == 10


def test_divergence_stops_both(worlds: Worlds) -> None:
    lead, other = worlds.answers("diverged")
    assert lead["code"] == other["code"] == 1
    assert lead["err"].startswith("fewlabels: the loss was not finite at step ") and lead["err"].count("\n") == 1
    assert other["err"] == ""


def test_what_cannot_be_done_is_said_before_anything_is_written(worlds: Worlds) -> None:
    path = worlds.two / "trained"
    for answer in worlds.answers("exists"):
        assert answer["code"] == 2
        assert answer["err"] == f"fewlabels: {path} exists and is not empty; name another --out, or add --overwrite\n"
    for answer in worlds.answers("odd"):
        assert answer["err"] == "fewlabels: --batch is 5, which 2 ranks cannot share equally\n"
    assert not (worlds.two / "odd").exists()
