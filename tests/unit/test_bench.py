"""The arithmetic of `benchmarks/bench`, with numbers made by hand; nothing here asks how long anything takes."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench import augment, e2e, ladder, pillow, record, step, subjects, tables, work
from bench.ladder import Inputs, Step, Switches, Training, difference, lockstep, rungs
from bench.measure import NotExact, Sample, Timings, alternate, ratio, timed, valid, worst
from fewlabels import nets
from fewlabels.augment.ops import Op

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def samples(*cpu: float) -> list[Sample]:
    return [Sample(wall=2 * c, cpu=c, device=None) for c in cpu]


def test_ratio_is_made_of_rounds() -> None:
    # medians of the times alone would give 4 / 1 = 4; round by round the ratios are 2, 4 and 10
    found = ratio([2.0, 4.0, 10.0], [1.0, 1.0, 1.0])
    assert found == (4.0, 2.0, 10.0)
    assert ratio([6.0, 1.0, 8.0, 9.0], [2.0, 1.0, 1.0, 9.0]) == (2.0, 1.0, 8.0)


def test_timings_divide_by_calls_and_compare_with_the_control() -> None:
    timings = Timings(
        names=("slow", "fast"),
        samples={"slow": samples(8.0, 12.0, 20.0), "fast": samples(4.0, 6.0, 4.0)},
        again=samples(10.0, 12.0, 16.0),
        basis="cpu",
        calls={"slow": 2, "fast": 4},
    )
    assert timings.seconds("slow") == [4.0, 6.0, 10.0]
    assert timings.seconds("fast") == [1.0, 1.5, 1.0]
    assert timings.ratio("fast") == (4.0, 4.0, 10.0)
    assert timings.control == 1.0  # of 0.8, 1 and 1.25
    row = timings.as_json()["rows"][1]
    assert row["seconds"] == 1.0 and row["cpu"] == [1.0, 1.5, 1.0] and row["wall"] == [2.0, 3.0, 2.0]
    assert "device" not in row
    assert timings._replace(basis="wall").seconds("slow") == [8.0, 12.0, 20.0]


def test_a_control_beyond_five_per_cent_is_not_valid() -> None:
    assert valid(1.0, 0.96, 1.049)
    assert not valid(1.0, 1.051)
    assert not valid(0.949)
    assert worst(1.01, 0.93, 1.05) == 0.93


def test_candidates_take_turns_and_the_reference_comes_twice() -> None:
    calls: list[str] = []

    class Staged:
        def begin(self) -> None:
            calls.append("begin")

        def __call__(self) -> None:
            calls.append("b")

        def end(self) -> None:
            calls.append("end")

    ticks: list[tuple[int, int]] = []
    timings = alternate(
        {"a": lambda: calls.append("a"), "b": Staged()},
        rounds=3,
        device=CPU,
        repeats=2,
        tick=lambda done, total: ticks.append((done, total)),
    )
    # four rounds with the one that is not counted, two calls in each block, the reference in two blocks
    assert Counter(calls) == {"a": 16, "b": 8, "begin": 4, "end": 4}
    staged = "".join(c[0] for c in calls if c != "a")
    assert staged == "bbbe" * 4
    assert {name: len(s) for name, s in timings.samples.items()} == {"a": 3, "b": 3} and len(timings.again) == 3
    assert ticks == [(i, 12) for i in range(1, 13)]
    assert [c for c in calls if len(c) == 1][:6] == list("aabbaa")
    assert calls.index("begin", 7) == 8  # the second round begins elsewhere: b first


def test_even_blocks_call_the_quick_one_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])
    monkeypatch.setattr("time.process_time", lambda: clock["now"])

    def take(seconds: float) -> Any:
        return lambda: clock.update(now=clock["now"] + seconds)

    timings = alternate({"slow": take(3.0), "fast": take(0.25)}, rounds=2, device=CPU, even=True)
    assert timings.calls == {"slow": 1, "fast": 12}
    assert timings.ratio("fast") == (12.0, 12.0, 12.0)
    assert timings.control == 1.0


def test_a_sample_has_no_device_time_on_the_cpu() -> None:
    sample = timed(lambda: None, CPU)
    assert sample.device is None and sample.wall >= 0 and sample.cpu >= 0


# ---- exactness comes first


@pytest.mark.slow
def test_our_views_equal_pillows() -> None:
    images = subjects.photos(64, 24)
    for name, preset in pillow.POLICIES.items():
        found = pillow.check(name, preset, images, CPU, count=64, tick=lambda done, total: None)
        assert found == {"views": 128, "differing": 0}


@pytest.mark.slow
def test_one_wrong_pixel_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(picture: Any, value: float) -> Any:
        picture = picture.copy()
        picture.putpixel((1, 1), (1, 2, 3))
        return picture

    monkeypatch.setitem(pillow.OPERATIONS, Op.POSTERIZE, wrong)
    monkeypatch.setattr(augment, "alternate", lambda *_, **__: pytest.fail("it was timed"))
    options = augment.Augment(device="cpu", batch=4, check=64, side=16)
    with pytest.raises(NotExact, match=r"of 128 views of the policy kekmodel differ from Pillow's.*nothing was timed"):
        augment.run(options, lambda text: contextlib.nullcontext(lambda done, total: None))


class Curve:
    """A training of one weight, which each step multiplies by `factor`; the weight is the loss."""

    def __init__(self, factor: float) -> None:
        self.factor, self.count = factor, 0
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.net.weight)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def loss(self) -> float:
        self.count += 1
        with torch.no_grad():
            self.net.weight *= self.factor
        return self.net.weight.item()


def test_every_second_step_starts_from_the_same_weights() -> None:
    one, other = step.lockstep(Curve(2.0), Curve(3.0), 4)
    assert one == [2.0, 4.0, 8.0, 16.0] and other == [3.0, 9.0, 12.0, 36.0]


def test_losses_too_far_apart_stop_the_run() -> None:
    assert difference([1.0, 3.0], [1.1, 2.7]) == pytest.approx(0.1)
    names = "a", "b"
    # losses 1, 1 and 1.1, 1.21
    assert step.compare(names, (Curve(1.0), Curve(1.1)), 2, 0.2)["difference"] == pytest.approx(0.155)
    with pytest.raises(NotExact, match=r"over 2 steps the losses of 'b' differ by 0\.16 of those of 'a', and 0\.1 is"):
        step.compare(names, (Curve(1.0), Curve(1.1)), 2, 0.1)
    with pytest.raises(NotExact):
        step.compare(names, (Curve(1.0), Curve(float("nan"))), 2, 0.1)


# ---- the ladder


def curve(training: Training, steps: int) -> list[float]:
    return [training.loss() for _ in range(steps)]


def test_momentum_is_followed() -> None:
    net = tiny()
    one, other = (Step(net, Switches(foreach=on), batches(), CPU) for on in (False, True))
    curve(one, 3)
    mine, its = lockstep(one, other, 6)
    assert mine == pytest.approx(its, rel=1e-6)


def batches(count: int = 2) -> list[Inputs]:
    g = torch.Generator().manual_seed(0)
    return [
        Inputs(
            torch.randn(4, 3, 16, 16, generator=g),
            torch.tensor([0, 1, 2, 3]),
            *torch.randn(2, 8, 3, 16, 16, generator=g),
        )
        for _ in range(count)
    ]


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return subjects.TinyNet(4)


def test_each_rung_turns_on_one_switch_more() -> None:
    for cuda in (False, True):
        ladder = rungs(cuda=cuda)
        on = [sum(vars(r.switches).values()) for r in ladder]
        assert on == list(range(len(ladder)))
    assert all(vars(rungs(cuda=True)[-1].switches).values())


def test_average_and_optimizer_over_all_tensors_give_the_same_numbers() -> None:
    net = tiny()
    loop, foreach = Step(net, Switches(), batches(), CPU), Step(net, Switches(foreach=True, quiet=True), batches(), CPU)
    assert curve(loop, 5) == pytest.approx(curve(foreach, 5), rel=1e-6)
    for a, b in zip(loop.average.state_dict().values(), foreach.average.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    # by hand: after one step the average has moved a thousandth of the way
    one = Step(net, Switches(), batches(), CPU)
    one()
    before, after = net.state_dict()["linear.weight"], one.net.state_dict()["linear.weight"]
    torch.testing.assert_close(one.average.state_dict()["linear.weight"], 0.999 * before + 0.001 * after)
    assert one.fetched == one.last.tolist()


class Repeat:
    """Records nothing: it runs again."""

    def __init__(self, device: torch.device) -> None:
        pass

    def rehearse(self, body: Any) -> None:
        body()

    def record(self, body: Any) -> Any:
        return body


@pytest.mark.parametrize("before", [0, 3])
def test_the_graph_leaves_no_trace_of_its_warm_up(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(ladder, "CudaRecorder", Repeat)
    net = tiny()
    plain, recorded = (Step(net, Switches(quiet=True, graph=on), batches(), CPU) for on in (False, True))
    curve(plain, before)
    mine, its = lockstep(plain, recorded, 6)
    assert mine == pytest.approx(its, rel=1e-6)


def test_the_weak_view_alone_has_its_own_statistics_and_no_gradient() -> None:
    net = tiny().eval()  # fixed statistics: then it makes no difference who passes together
    together, alone = (Step(net, Switches(separate=s), batches(), CPU) for s in (False, True))
    for one in (together, alone):
        one.net.eval()
    assert curve(together, 3) == pytest.approx(curve(alone, 3), rel=1e-5)


def test_the_usual_step_is_our_step() -> None:
    config = subjects.config("tiny", batch=4, uratio=2, device="cpu")
    trainer = subjects.trainer(config, subjects.source(300, 16), CPU)
    fixed = step.fixed(trainer, 2)
    usual = Step(trainer.model.net, Switches(), fixed, CPU)
    assert curve(usual, 4) == pytest.approx(curve(step.Ours(trainer), 4), rel=1e-4)


# ---- counted work


@pytest.mark.slow
def test_work_of_wrn_28_2() -> None:
    """Multiply-adds layer by layer from the published table of the net; the bytes and the floors of one H100 (790
    TFLOP/s, 3.0 TB/s) were worked out apart from this code, from the counts of its tensors."""
    macs = 27 * 16 * 1024
    for c_in, c, pixels in ((16, 32, 1024), (32, 64, 256), (64, 128, 64)):
        macs += pixels * (9 * c_in * c + c_in * c + 9 * c * c) + 3 * pixels * 2 * 9 * c * c
    macs += 128 * 10
    net, shape = nets.build("wrn-28-2", classes=10, shape=(3, 32, 32)), (3, 32, 32)
    one = work.forward(net, 1, shape)
    assert one.flops == 2 * macs and macs == pytest.approx(214.35e6, rel=1e-4)
    assert one.elements(compiled=False) * 2 == pytest.approx(8.27e6, rel=2e-3)
    assert one.elements(compiled=True) * 2 == pytest.approx(6.36e6, rel=2e-3)
    # each convolution and the head twice more, but for the gradient of the images
    stem = 27 * 16 * 1024
    assert work.both(net, 3, shape).flops == 3 * 2 * (3 * macs - stem)
    assert work.both(net, 1, shape).elements(compiled=False) * 2 == pytest.approx(8.27e6 + 13.24e6, rel=2e-3)
    joint = work.step(net, shape, batch=64, uratio=7, separate=False)
    apart = work.step(net, shape, batch=64, uratio=7, separate=True)
    assert (joint.flops, apart.flops) == (pytest.approx(1.234e12, rel=1e-3), pytest.approx(0.850e12, rel=1e-3))
    for count, compiled, expected in ((joint, False, 7.2), (joint, True, 5.7), (apart, False, 5.1), (apart, True, 4.0)):
        seconds = count.seconds(790e12, 3.0e12, bytes_each=2, compiled=compiled)
        assert 1000 * seconds == pytest.approx(expected, abs=0.05)


def test_floor_takes_the_longer_of_arithmetic_and_bytes() -> None:
    ops = (work.Op("a", 100, 10, False), work.Op("b", 0, 30, True), work.Op("c", 1000, 1, False))
    count = work.Count(ops)
    # at 10 operations and 4 bytes a second: 10 or 5, 15, 100 or 0.5
    assert count.seconds(10, 4, bytes_each=2, compiled=False) == 10 + 15 + 100
    assert count.seconds(10, 4, bytes_each=2, compiled=True) == 110
    assert count.flops == 1100 and count.elements(compiled=True) == 11


def test_tiny_net_has_the_parameters_that_the_documents_say() -> None:
    count = 27 * 16 + 2 * 16 + 9 * 16 * 32 + 2 * 32 + 32 * 10 + 10
    assert sum(p.numel() for p in subjects.TinyNet(10).parameters()) == count == 5466


# ---- parts of a step, records, documents


def test_parts_of_a_step() -> None:
    apart = {"draw": 1.0, "draw and views": 5.0, "average": 2.0, "log points": 32.0}
    found = e2e.split(20.0, apart, log_every=16)
    assert found["seconds"] == {
        "draw": 1.0,
        "views": 4.0,
        "average": 2.0,
        "log": 2.0,
        "forward, backward, optimizer": 11.0,
    }
    assert found["share_outside"] == pytest.approx(9 / 20)


def test_a_run_that_is_not_valid_is_not_filed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = record.result("augment", CPU, {}, 1.2)
    good = record.result("augment", CPU, {}, 1.02)
    assert (bad["valid"], good["valid"]) == (False, True)
    assert record.write(bad, None) is None and not (tmp_path / "results").exists()
    assert record.write(good, None) == Path("results/bench/augment-cpu.json")
    assert json.loads(Path("results/bench/augment-cpu.json").read_text())["control"] == 1.02
    assert record.write(bad, str(tmp_path / "own.json")) == tmp_path / "own.json"
    assert set(good["machine"]) >= {"versions", "device", "threads", "load_average", "made"}


def test_the_commit_is_marked_where_package_or_benchmarks_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*args: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", *who, *args], cwd=checkout, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    checkout = tmp_path / "checkout"
    package, benchmarks = checkout / "src" / "fewlabels", checkout / "benchmarks" / "bench"
    for folder in (package, benchmarks):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    monkeypatch.setattr(record, "PACKAGE", package)
    monkeypatch.setattr(record, "HERE", benchmarks)
    clean = git("rev-parse", "--short", "HEAD")
    assert record.commit() == clean
    (checkout / "notes").write_text("of no weight\n")
    assert record.commit() == clean
    for folder in (package, benchmarks):
        (folder / "__init__.py").write_text("changed = True\n")
        assert record.commit() == f"{clean}+changes"
        (folder / "__init__.py").write_text("")
    monkeypatch.setattr(record, "HERE", tmp_path)  # benchmarks of somewhere else
    assert record.commit() is None


def made(**values: Any) -> dict[str, Any]:
    machine = {"device": "CPU, a chip", "threads": 1, "made": "2026-01-02 03:04:05 UTC"}
    machine["versions"] = {"torch": "2.9", "pillow": "12"}
    return {"device": "cpu", "valid": True, "control": 1.0, "machine": machine, "options": {"rounds": 3}} | values


def test_documents_are_filled_between_markers() -> None:
    row = {"name": "Pillow", "seconds": 0.2, "ratio": {"median": 1, "low": 1, "high": 1}}
    fast = {"name": "fewlabels", "seconds": 0.01, "ratio": {"median": 20.4, "low": 19, "high": 21}}
    policy = {"ratio": 20.4, "rows": [row, fast]}
    options = {"batch": 100, "rounds": 3}
    one = made(bench="augment", options=options, exact={"kekmodel": {}}, kekmodel=policy, three_op=policy)
    text = (
        "a\n<!-- bench augment -->\nold\n<!-- end bench augment -->\nb\n<!-- bench data -->\n<!-- end bench data -->\n"
    )
    filled = tables.render(text, [one])
    assert "| kekmodel: fewlabels | 10 | 10,000 | 20.4 (19 to 21) |" in filled
    assert "old" not in filled and filled.startswith("a\n") and "\nb\n" in filled and "Not measured yet." in filled
    assert "CPU, a chip, 1 thread(s), batch 100, 3 rounds, torch 2.9, Pillow 12, 2026-01-02, control 1.000." in filled
    assert tables.render(filled, [one]) == filled
    assert "Not measured" in tables.render(filled, [one | {"valid": False}])
    head = tables.render("<!-- bench headline -->\n<!-- end bench headline -->", [one])
    assert (
        "| weak and strong views, two operations, the same bits as Pillow image by image | 20.4 times as fast |" in head
    )


def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    records = tables.read(ROOT / record.FOLDER)
    for path in tables.DOCUMENTS:
        text = (ROOT / path).read_text()
        assert "<!-- bench " in text
        assert tables.render(text, records) == text, f"{path}: run `python benchmarks/bench.py render`"
