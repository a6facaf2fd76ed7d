"""One plan, two ways to execute it: grouped by operation, and as one Triton kernel."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every_operation import VARIANTS, feed

from fewlabels.augment.named import WEAK, strong_view, weak_view
from fewlabels.augment.views import View
from fewlabels.runtime.rng import Rng
from fewlabels.training.batches import way_of

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def make(name: str, shape: tuple[int, int, int]) -> View:
    return weak_view(name, shape) if name in WEAK else strong_view(name, shape)


@pytest.mark.slow
@needs_triton
def test_the_kernel_gives_the_bits_of_grouped_in_the_interpreter() -> None:
    script = Path(__file__).parent / "views_by_kernel.py"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) > 2 * 12 + len(VARIANTS)
    assert {name: n for name, n in found.items() if n} == {}


@needs_triton
def test_which_way_views_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = {0: (9, 0), 1: (7, 5), 2: (6, 1)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[device.index])
    hopper, turing, pascal = (torch.device("cuda", i) for i in range(3))
    ways = {side: [way_of((3, side, side), d) for d in (hopper, turing, pascal)] for side in (8, 64, 96, 128, 129)}
    assert ways[8] == ways[64] == ["kernel", "kernel", "grouped"]
    assert ways[96] == ways[128] == ["kernel", "grouped", "grouped"]
    assert ways[129] == ["grouped"] * 3
    assert way_of((2, 32, 32), hopper) == way_of((3, 32, 32), torch.device("cpu")) == "grouped"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert way_of((3, 32, 32), hopper) == "grouped"


@needs_triton
@pytest.mark.parametrize("strong", ["cta", "rand:google"])
def test_a_kernel_that_cannot_be_built_is_done_without(monkeypatch: pytest.MonkeyPatch, strong: str) -> None:
    """As on a machine without a C compiler; Triton itself has nothing to run on here."""
    from fewlabels.augment import kernel

    def fails(*_: object) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    for replaced in (True, False):
        with monkeypatch.context() as m:
            m.setattr("fewlabels.training.batches.way_of", lambda *_: "kernel")
            if replaced:
                m.setattr(kernel, "render", fails)
            one = feed(strong)
        assert one.way == "grouped" and len(one.notes) == 1
        assert one.notes[0].startswith("the views are made without the Triton kernel, which is slower and gives the")
        assert not replaced or "(Failed to find C compiler. Please specify via CC environment" in one.notes[0]
        plain = feed(strong)
        assert plain.notes == []
        for x, y in zip(one.batch(3).u, plain.batch(3).u, strict=True):
            assert torch.equal(x, y)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    ("name", "capability"), [("ms", 80), ("rand:kekmodel", 80), ("rand:kekmodel", 90), ("cta", 90)]
)
def test_the_kernel_compiles_for_a_gpu_that_is_not_here(name: str, capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fewlabels.augment import kernel

    shape = (3, 32, 32)
    view = make(name, shape)
    plan = view.plan(view.draw(Rng(0, 0), 2, "test"))
    assert plan is not None
    constants = {**kernel.constants(plan, shape), "BYTES": False, "N": 1024}
    pointers = {"data": "*i32", "rows": "*i64", "words": "*i32", "taps": "*i32", "truncated": "*u8", "out": "*fp32"}
    signature = {**pointers, "scale": "*fp32", "bias": "*fp32", "colour": "i32", "fill": "i32"}
    names = list(kernel._view.arg_names)
    source = ASTSource(
        kernel._view,
        {**signature, **dict.fromkeys(constants, "constexpr")},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=kernel.options(1024))
    assert f".target sm_{capability}" in made.asm["ptx"]
    assert "fma." not in made.asm["ptx"]  # each sum and product is rounded
    assert made.metadata.enable_fp_fusion is False  # as the assembler is told, which would fuse them too
    assert len(made.asm["cubin"]) > 10_000
    # what four programs on one of its processors may share is 100 KiB and more
    assert made.metadata.shared <= 16 * 1024
