"""One plan, three ways to execute it: grouped by operation, uniform, and as one Triton kernel."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from every_operation import VARIANTS, differing_batches, every_operation, feed

from fewlabels.augment import uniform
from fewlabels.augment.named import STRONG, WEAK, strong_view, weak_view
from fewlabels.augment.pixels import pack
from fewlabels.augment.plan import run
from fewlabels.augment.views import View
from fewlabels.feed import way_of
from fewlabels.rng import Rng

SHAPES = [(3, 32, 32), (1, 12, 12), (3, 20, 28), (2, 16, 16)]
VIEWS = [name for name in dict.fromkeys((*WEAK, *STRONG)) if name != "affine"]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def make(name: str, shape: tuple[int, int, int]) -> View:
    return weak_view(name, shape) if name in WEAK else strong_view(name, shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VIEWS)
def test_uniform_gives_the_bits_of_grouped(name: str, shape: tuple[int, int, int]) -> None:
    """Grouped is compared with Pillow elsewhere."""
    view = make(name, shape)
    images = np.random.default_rng(0).integers(0, 256, (48, *shape[1:], shape[0]), dtype=np.uint8)
    images[24:] //= 3
    pixels = pack(torch.from_numpy(images))
    draw = view.draw(Rng(5, 0), 48, "test")
    plan = view.plan(draw)
    assert plan is not None
    before = pixels.clone()
    grouped, other = view(pixels, draw), run(pixels, plan, shape, uniform.apply)
    assert torch.equal(grouped, other)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("shape", VARIANTS)
def test_uniform_gives_the_bits_of_grouped_for_every_operation(shape: tuple[int, int, int]) -> None:
    plan = every_operation(shape)
    images = np.random.default_rng(0).integers(0, 256, (len(plan.op), *shape[1:], shape[0]), dtype=np.uint8)
    images[::2] //= 3
    pixels = pack(torch.from_numpy(images))
    for way in (plan, plan._replace(fill=(1, 2, 3), colour=None), plan._replace(fill=None, moves_last=False)):
        assert torch.equal(run(pixels, way, shape), run(pixels, way, shape, uniform.apply))


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
    capability = {0: (9, 0), 1: (6, 1)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[device.index])
    new, old, cpu = torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")
    assert way_of((3, 64, 64), new) == way_of((1, 8, 8), new) == "kernel"
    assert way_of((3, 96, 96), new) == way_of((2, 32, 32), new) == way_of((3, 32, 32), cpu) == "grouped"
    assert way_of((3, 32, 32), old) == "uniform"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert way_of((3, 32, 32), new) == "uniform"


@needs_triton
@pytest.mark.parametrize("strong", ["cta", "rand:google"])
def test_a_kernel_that_cannot_be_built_is_done_without(monkeypatch: pytest.MonkeyPatch, strong: str) -> None:
    """As on a machine without a C compiler; Triton itself has nothing to run on here."""
    from fewlabels.augment import kernel

    def fails(*_: object) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    for replaced in (True, False):
        with monkeypatch.context() as m:
            m.setattr("fewlabels.feed.way_of", lambda *_: "kernel")
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


@pytest.mark.parametrize("strong", ["cta", "rand:google"])
def test_batches_of_the_uniform_way(strong: str) -> None:
    assert differing_batches(strong, "uniform", 8) == 0


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
