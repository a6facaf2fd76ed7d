"""What was measured, where and with what, as JSON files."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import fewlabels
from bench.measure import TOLERANCE, valid
from fewlabels.runtime import files
from fewlabels.training.recorder import peak_memory

PACKAGE = Path(fewlabels.__file__).parent
HERE = Path(__file__).parent
FOLDER = Path("results") / "bench"
"""Where results lie, from the root of a checkout."""

Result = dict[str, Any]


def result(bench: str, device: torch.device, options: Mapping[str, Any], control: float, /, **values: Any) -> Result:
    """The record of one run: what, where, how, whether it counts, and the numbers."""
    return {
        "bench": bench,
        "device": device_slug(device),
        "valid": valid(control),
        "control": control,
        "tolerance": TOLERANCE,
        **values,
        "options": dict(options),
        "machine": machine(device),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Versions, device, threads and how busy the machine was."""
    return {
        "made": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {processor()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "peak_memory_bytes": peak_memory(),
        "platform": platform.platform(),
        "versions": {
            "fewlabels": fewlabels.__version__,
            "commit": commit(),
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "torchvision", "numpy", "pillow", "triton")},
        },
    }


def commit() -> str | None:
    """The commit of the checkout that the package and the benchmarks lie in, marked where either was changed since.

    None where they are of no checkout, or not of the same one.
    """

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=PACKAGE, capture_output=True, check=True, text=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "__init__.py"):  # installed beside some other project's files
            return None
        return git("rev-parse", "--short", "HEAD") + (
            "+changes" if git("status", "--porcelain", "--", ".", str(HERE)) else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"model name\s*: (.+)", text)
    return names[0].strip() if names else platform.machine()


def device_slug(device: torch.device) -> str:
    """Part of a file name: `cpu`, or the GPU's name in lower case."""
    if device.type != "cuda":
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write(record: Result, out: str | None) -> Path | None:
    """Write the record to `out`, or under its own name in `FOLDER`, where only valid ones belong (else None)."""
    if out is None and not record["valid"]:
        return None
    path = Path(out).expanduser() if out else FOLDER / f"{record['bench']}-{record['device']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, record)
    return path
