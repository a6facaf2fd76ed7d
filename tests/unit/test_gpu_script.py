"""The script of the first minutes on a GPU, rehearsed without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fewlabels.algorithms import ALGORITHMS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def call(out: Path, *words: str) -> tuple[int, dict[str, dict[str, object]]]:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(out.read_text())


@pytest.mark.slow
def test_a_rehearsal(tmp_path: Path) -> None:
    status, found = call(tmp_path / "gpu.json", "--only", "bits|waits|train plain")
    assert status == 0 and list(found) == ["bits", "train plain", "waits"]
    bits, waits = found["bits"]["result"], found["waits"]["result"]
    assert isinstance(bits, dict) and all(one["grouped"]["differ"] == 0 for one in bits.values())
    assert isinstance(waits, dict) and len(waits) == len(ALGORITHMS) + 3
    assert all(one == {"waits": [], "finite": True} for one in waits.values())


@pytest.mark.slow
def test_what_fails_or_lasts_stops_nothing(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import gpu
    finally:
        sys.path.remove(str(SCRIPT.parent))
    failed = gpu.timed([sys.executable, "-c", "print('words'); raise SystemExit(3)"], 30)
    assert failed["status"] == 3 and failed["said"] == "words\n"
    part = "import time; print('PART {\"a\": 1}', flush=True); time.sleep(60)"
    assert gpu.timed([sys.executable, "-c", part], 3) | {"seconds": 0} == {
        "status": 124,
        "seconds": 0,
        "result": {"a": 1},
    }
