"""What is to be known first on a GPU: does it run, is it right, how fast; in order of value, each under its own limit.

    python benchmarks/gpu.py --out gpu.json                                   # about five minutes on a fast GPU
    python benchmarks/gpu.py --device cpu --small --only 'env|bits' --out x.json    # a rehearsal without one

A step that fails or takes too long does not stop the others. The file is written anew after each of them: its result,
or the end of what it said.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

SMOKES = {
    "plain": "",
    "separate-weak": "--bn separate-weak",
    "cta": "--strong cta --weak ms",
    "host": "--data.residency host",
    "graph": "--graph",
    "compile": "--compile",
    "all": "--compile --graph --bn separate-weak",
    "fp16": "--precision fp16",
    "tf32": "--precision tf32",
    "deterministic": "--deterministic",
}
"""Short trainings, and what each is to show."""
GPU_ONLY = ("graph", "all", "fp16", "tf32")
BITS = [
    ("rand:kekmodel", (3, 32, 32)),
    ("cta", (3, 32, 32)),
    ("ms", (3, 32, 32)),
    ("rand:google", (3, 32, 32)),
    ("autoaugment", (3, 32, 32)),
    ("rand:imagenet", (3, 32, 32)),
    ("rand:leedoyup", (1, 28, 28)),
    ("cta", (1, 8, 8)),
    ("rand:kekmodel", (3, 64, 64)),
    ("rand:kekmodel", (3, 96, 96)),
]
"""Views, and the images (C, H, W) that they are of."""
SWITCHES: dict[str, dict[str, Any]] = {
    "joint": {},
    "joint graph": {"graph": True},
    "separate graph": {"bn": "separate-weak", "graph": True},
    "cta": {"strong": "cta"},
    "cta graph": {"strong": "cta", "graph": True},
    "joint tf32": {"precision": "tf32"},
    "separate compile graph": {"bn": "separate-weak", "compile": True, "graph": True},
}
"""Settings whose steps are timed."""


class Place:
    """The device and the sizes of a check."""

    def __init__(self, device: str, small: bool) -> None:
        import torch

        self.cuda, self.small = device.startswith("cuda"), small
        self.device, self.name = torch.device(device), device
        if self.cuda:
            torch.cuda.set_device(self.device)

    def wait(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    def trainer(self, algorithm: Any = None, **settings: Any) -> Any:
        """A training on photographs, as `bench` has it; FixMatch unless another algorithm is given."""
        import torch

        from bench import subjects

        if not self.cuda:
            settings = {k: v for k, v in settings.items() if k not in ("graph", "compile", "precision")}
        small = {"batch": 4, "uratio": 2} if self.small else {}
        net = settings.pop("net", "tiny" if self.small else "wrn-28-2")
        train = subjects.config(net, device=self.name, **{**small, **settings})
        if algorithm is not None:
            train = replace(train, algorithm=algorithm)
        torch.backends.cudnn.benchmark = True
        tf32 = train.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        return subjects.trainer(train, subjects.source(256 if self.small else 4096), self.device)


def env(here: Place) -> dict[str, Any]:
    """Versions, and what the device can do."""
    import torch

    from bench.record import commit

    out: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    out |= {"commit": commit(), "compiler": shutil.which("cc") or shutil.which("gcc")}
    if importlib.util.find_spec("triton"):
        out["triton"] = importlib.import_module("triton").__version__
    if here.cuda:
        gpu = torch.cuda.get_device_properties(here.device)
        out |= {"gpu": gpu.name, "memory": gpu.total_memory, "capability": [gpu.major, gpu.minor]}
        a = torch.randn(8192, 8192, device=here.device, dtype=torch.bfloat16)
        out["bf16_tflops"] = 2 * 8192**3 / seconds(here, lambda: a @ a, 10) / 1e12
        x, y = (torch.empty(2**30, dtype=torch.uint8, device=here.device) for _ in range(2))
        out["copy_gb_per_s"] = 2 * 2**30 / seconds(here, lambda: y.copy_(x), 10) / 1e9
    return out


def seconds(here: Place, work: Callable[[], object], times: int) -> float:
    """Of one call, on the wall, after three that do not count."""
    for _ in range(3):
        work()
    here.wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    here.wait()
    return (time.perf_counter() - start) / times


def bits(here: Place) -> dict[str, Any]:
    """Views made on the device, by the kernel and grouped: how many differ from the CPU's, and their milliseconds."""
    import numpy as np
    import torch

    from fewlabels.augment.named import WEAK, strong_view, weak_view
    from fewlabels.augment.pixels import Normalize
    from fewlabels.augment.plan import run
    from fewlabels.runtime.rgb import pack
    from fewlabels.runtime.rng import Rng

    out: dict[str, Any] = {}
    for name, shape in BITS[:2] if here.small else BITS:
        channels, height, width = shape
        view: Any = weak_view(name, shape) if name in WEAK else strong_view(name, shape)
        rows = 16 if here.small else 2048 if height <= 32 else 512
        plan = view.plan(view.draw(Rng(3, 0), rows, "gpu"))
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (64, height, width, channels)).astype(np.uint8)
        images[32:] = images[32:] // 8 + np.linspace(20, 120, width)[None, None, :, None].astype(np.uint8)
        pixels, index = pack(torch.from_numpy(images)), torch.from_numpy(random.integers(0, 64, rows))
        halves = None in (plan.fill, plan.colour)
        normalize = Normalize(shape, [0.4, 0.5, 0.6][:channels], [0.2, 0.25, 0.3][:channels], halves=halves)
        wanted = normalize(run(pixels[index], plan, shape))
        there, rows_there, scaled = pixels.to(here.device), index.to(here.device), normalize.to(here.device)
        ways: dict[str, Callable[[], Any]] = {}
        ways["grouped"] = lambda t=there, i=rows_there, p=plan, s=shape, n=scaled: n(run(t[i], p, s))
        if here.cuda:
            from fewlabels.augment import kernel

            kept = torch.from_numpy(images).flatten(1).to(here.device) if channels == 1 else there
            ways["kernel"] = lambda k=kept, i=rows_there, p=plan, n=scaled: kernel.render(k, i, p, n)
        one: dict[str, Any] = {"views": rows}
        for way, make in ways.items():
            start = time.perf_counter()
            got = make().cpu()
            one[way] = {
                "differ": int((got != wanted).flatten(1).any(1).sum()),
                "first_s": round(time.perf_counter() - start, 2),
                "ms": round(1000 * seconds(here, make, 2 if here.small else 10), 3),
            }
        out[f"{name} {'x'.join(map(str, shape))}"] = one
    return out


def waits(here: Place) -> dict[str, Any]:
    """Steps of every algorithm: the lines that wait for the device, and whether the loss is a number."""
    import torch

    from fewlabels.algorithms import ALGORITHMS, FixMatch

    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "separate-weak": (FixMatch(bn="separate-weak"), {}),
        "teacher ema": (FixMatch(teacher="ema"), {}),
        "cta": (FixMatch(), {"strong": "cta"}),
    }
    cases |= {name: (config(), {"uratio": 1}) for name, config in ALGORITHMS.items()}
    out = {}
    for name, (algorithm, settings) in cases.items():
        trainer = here.trainer(algorithm, **{"net": "tiny", "batch": 4 if here.small else 16, **settings})
        for step in range(6):
            trainer.step(step)
        here.wait()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if here.cuda:
                torch.cuda.set_sync_debug_mode("warn")
            for step in range(6, 9):
                trainer.step(step)
            if here.cuda:
                torch.cuda.set_sync_debug_mode("default")
        lines = {f"{Path(w.filename).name}:{w.lineno}" for w in seen if "synchroniz" in str(w.message).lower()}
        out[name] = {"waits": sorted(lines), "finite": trainer.nonfinite_step() is None}
    return out


def recorded(here: Place) -> dict[str, Any]:
    """A recorded step against a plain one and a plain one again, with deterministic operations: largest differences."""
    import torch

    from fewlabels.algorithms import UDA, MeanTeacher
    from fewlabels.config.settings import Optim

    torch.use_deterministic_algorithms(True)
    cases: dict[str, dict[str, Any]] = {
        "fixmatch": {},
        "separate-weak": {"bn": "separate-weak"},
        "adam": {"optim": Optim(name="adam", lr=1e-3)},
        "uda": {"algorithm": UDA(tau=0.0, temperature=0.5)},
        "mean-teacher": {"algorithm": MeanTeacher(), "uratio": 1},
        "cta": {"strong": "cta"},
        "bf16": {"precision": "bf16"},
    }
    out = {}
    for name, settings in cases.items():
        curves = []
        for graph in (False, False, True):
            small = {"net": "tiny" if here.small else "wrn-10-1", "batch": 16, "precision": "fp32"}
            trainer = here.trainer(**{**small, "graph": graph, **settings})
            torch.backends.cudnn.benchmark = False
            losses = []
            for step in range(4 if here.small else 12):
                trainer.step(step)
                losses.append(trainer.read_log()["loss"])
            curves.append((losses, [p.detach().clone() for p in trainer.model.parameters()]))

        def apart(i: int, curves: Any = curves) -> list[float]:
            (a, p), (b, q) = curves[0], curves[i]
            weights = max(float((x - y).abs().max()) for x, y in zip(p, q, strict=True))
            return [max(abs(x - y) for x, y in zip(a, b, strict=True)), weights]

        out[name] = {"again": apart(1), "recorded": apart(2)}
    return out


def speed(here: Place) -> dict[str, Any]:
    """Milliseconds of a step with its data: on the wall, of the host until all is launched, and of the data alone."""
    out = {}
    for name, settings in SWITCHES.items():
        trainer = here.trainer(**settings)
        steps = 2 if here.small else 60
        for step in range(8):
            trainer.step(step)
        here.wait()
        trainer.data_seconds, start = 0.0, time.perf_counter()
        for step in range(8, 8 + steps):
            trainer.step(step)
        launched = time.perf_counter() - start
        here.wait()
        wall = time.perf_counter() - start
        per = {"ms": wall, "host_ms": launched, "data_ms": trainer.data_seconds}
        out[name] = {k: round(1000 * v / steps, 3) for k, v in per.items()} | {"way": trainer.batches.way}
        print(f"PART {json.dumps(out)}", flush=True)  # what is cut off keeps what it has
        del trainer
        gc.collect()
    return out


CHECKS: Mapping[str, tuple[int, Callable[[Place], dict[str, Any]]]] = {
    "env": (60, env),
    "bits": (200, bits),
    "waits": (120, waits),
    "recorded": (120, recorded),
    "speed": (240, speed),
}
"""Seconds that each may take, and what it does; the short trainings come after `bits`."""


def smoke(device: str, small: bool, options: str, folder: str) -> list[str]:
    """The command of a short training."""
    words = "train fixmatch --data digits.1@40 --no-baseline --no-progress --steps 20 --log-every 5 --eval-every 20"
    net = "--net small-4 --batch 4 --uratio 1" if small else ""
    more = f"--save-every 20 --device {device} --out {folder} {net} {options}"
    return [sys.executable, "-m", "fewlabels", *words.split(), *more.split()]


def timed(command: list[str], limit: int) -> dict[str, Any]:
    """What came of a command: its status, seconds, result or last words."""
    start = time.perf_counter()
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env, check=False)
        status, text = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        status, text = 124, (late.stdout or b"").decode() + (late.stderr or b"").decode()
    out: dict[str, Any] = {"status": status, "seconds": round(time.perf_counter() - start, 1)}
    for mark in ("RESULT ", "PART "):
        if found := re.findall(f"^{mark}(.*)$", text, re.M):
            return out | {"result": json.loads(found[-1])}
    return out | {"said": text[-1500:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true", help="sizes for a rehearsal on a CPU")
    parser.add_argument("--only", default=".", help="regular expression of the steps to take")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.check:
        print(f"RESULT {json.dumps(CHECKS[given.check][1](Place(given.device, given.small)))}")
        return 0
    again = [sys.executable, __file__, "--device", given.device, *["--small"] * given.small, "--check"]
    with tempfile.TemporaryDirectory() as folder:
        steps = [(name, [*again, name], limit) for name, (limit, _) in CHECKS.items()]
        smokes = {n: o for n, o in SMOKES.items() if given.device.startswith("cuda") or n not in GPU_ONLY}
        made = [(f"train {n}", smoke(given.device, given.small, o, f"{folder}/{n}"), 150) for n, o in smokes.items()]
        found: dict[str, Any] = {}
        for name, command, limit in [*steps[:2], *made, *steps[2:]]:
            if re.search(given.only, name):
                found[name] = timed(command, limit)
                given.out.write_text(json.dumps(found, indent=1))
                print(f"{name}: status {found[name]['status']}, {found[name]['seconds']} s", flush=True)
    with contextlib.suppress(BrokenPipeError):
        print(f"written to {given.out}")
    return int(any(one["status"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
