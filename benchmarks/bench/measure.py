"""Timing on a machine that others use too: candidates take turns, and only ratios within a round count.

The reference is timed twice in each round. The ratio of the two, which should be 1, is the control: where its
median strays by more than `TOLERANCE`, the run says nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch

TOLERANCE = 0.05
"""Largest |control - 1| of a valid run."""

MOST = 100
"""How many times the calls of the reference a quick candidate gets, at most, where blocks are made even."""

Work = Callable[[], object]
"""What is timed. If it has methods `begin` and `end`, they are called before and after each block, untimed."""
Tick = Callable[[int, int], None]
"""Called as ``tick(done, total)`` after each timed block."""

Basis = Literal["cpu", "wall", "device"]
"""What a ratio is made of: processor time of this process (it does not count what others do meanwhile), time on
the wall, or CUDA's events."""


class NotExact(RuntimeError):
    """Two ways to the same thing gave different results, so that their times must not be compared."""


class Sample(NamedTuple):
    """Seconds of one timed block."""

    wall: float
    cpu: float
    """Of all threads of this process."""
    device: float | None
    """Between two CUDA events around the block; None on the CPU."""


class Ratio(NamedTuple):
    """Over the rounds of a run."""

    median: float
    low: float
    high: float


def timed(work: Work, device: torch.device) -> Sample:
    """Time one block; on a GPU it ends when the device has done all of it."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if cuda:
        after.record()
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Sample(wall, cpu, before.elapsed_time(after) / 1000 if cuda else None)


def summary(values: Sequence[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def ratio(reference: Sequence[float], other: Sequence[float]) -> Ratio:
    """How many times faster `other` is than `reference`, round by round."""
    return summary([a / b for a, b in zip(reference, other, strict=True)])


class Timings(NamedTuple):
    """Rounds of a reference, the reference again, and candidates."""

    names: tuple[str, ...]
    """The first is the reference."""
    samples: Mapping[str, Sequence[Sample]]
    again: Sequence[Sample]
    """The reference, timed a second time in each round."""
    basis: Basis
    calls: Mapping[str, int]
    """Of the work in one block."""

    def seconds(self, name: str) -> list[float]:
        """Of one call, in each round."""
        return [self._of(s) / self.calls[name] for s in self.samples[name]]

    def median(self, name: str) -> float:
        """Seconds of one call, median over the rounds."""
        return statistics.median(self.seconds(name))

    def ratio(self, name: str, reference: str | None = None) -> Ratio:
        """How many times faster `name` is than the reference."""
        return ratio(self.seconds(reference or self.names[0]), self.seconds(name))

    @property
    def control(self) -> float:
        """Median ratio of the reference to itself."""
        first = self.names[0]
        return ratio(self.seconds(first), [self._of(s) / self.calls[first] for s in self.again]).median

    def _of(self, sample: Sample) -> float:
        value = getattr(sample, self.basis)
        assert value is not None
        return float(value)

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured; seconds are those of one call."""
        rows = []
        for name in self.names:
            rounds = {"calls_in_a_block": self.calls[name], **self._rounds(self.samples[name], self.calls[name])}
            rows.append({"name": name, "seconds": self.median(name), "ratio": self.ratio(name)._asdict(), **rounds})
        return {
            "basis": self.basis,
            "control": self.control,
            "rows": rows,
            "again": self._rounds(self.again, self.calls[self.names[0]]),
        }

    def _rounds(self, samples: Sequence[Sample], calls: int) -> dict[str, list[float]]:
        kinds = [kind for kind in ("wall", "cpu", "device") if getattr(samples[0], kind) is not None]
        return {kind: [round(getattr(s, kind) / calls, 9) for s in samples] for kind in kinds}


def alternate(
    candidates: Mapping[str, Work],
    *,
    rounds: int,
    device: torch.device,
    basis: Basis | None = None,
    repeats: int = 1,
    even: bool = False,
    tick: Tick = lambda done, total: None,
) -> Timings:
    """Time the candidates in turn, after one round that is not counted.

    Args:
        candidates: the first is the reference.
        basis: what the ratios are made of; default: the device's time on a GPU, else the processor's.
        repeats: calls in one timed block.
        even: call quicker candidates more often, so that all blocks take about as long as the reference's. A single
            quick call after a slow one is mostly the cost of cold caches and of memory that was given back.
    """
    assert rounds > 0 and repeats > 0
    basis = basis or ("device" if device.type == "cuda" else "cpu")
    names = list(candidates)
    slots = [*names, None]  # None: the reference again
    samples: dict[str | None, list[Sample]] = {slot: [] for slot in slots}
    calls, first = dict.fromkeys(names, repeats), dict[str, Sample]()
    done, total = 0, (rounds + 1) * len(slots)
    for number in range(rounds + 1):
        turn = number % len(slots)  # nobody always follows the same neighbour
        for slot in slots[turn:] + slots[:turn]:
            name = slot or names[0]
            sample = _block(candidates[name], calls[name], device)
            first[name] = sample if number == 0 else first[name]
            if number > 0:
                samples[slot].append(sample)
            done += 1
            tick(done, total)
        if number == 0 and even:
            whole = first[names[0]].wall
            calls = {name: max(repeats, round(repeats * whole / max(first[name].wall, whole / MOST))) for name in names}
            calls[names[0]] = repeats
    again = samples.pop(None)
    return Timings(tuple(names), {k: v for k, v in samples.items() if k is not None}, again, basis, calls)


def _block(work: Work, calls: int, device: torch.device) -> Sample:
    getattr(work, "begin", _nothing)()

    def block() -> None:
        for _ in range(calls):
            work()  # what it returns goes at once, as in a training

    sample = timed(block, device)
    getattr(work, "end", _nothing)()
    return sample


def _nothing() -> None:
    pass


def valid(*controls: float) -> bool:
    """Whether the ratios of a run with these controls mean anything."""
    return all(abs(control - 1) <= TOLERANCE for control in controls)


def worst(*controls: float) -> float:
    """The control that strays most."""
    return max(controls, key=lambda control: abs(control - 1))
