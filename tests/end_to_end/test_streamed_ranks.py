"""Two ranks that read random crops from files: each its own pictures, together what one process reads and learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from fewlabels.config.recipes import changed, recipe
from fewlabels.config.settings import Train
from fewlabels.data.stream import Files
from fewlabels.runs.run import Run
from forked_ranks import Rank, free_port
from imagenet_tree import make_tree

pytestmark = pytest.mark.slow

STEPS, BATCH, URATIO = 6, 4, 3
SMALL = {
    "data.image_size": 16,
    "net.name": "timm:test_vit",  # no batch norm, whose statistics are those of a rank's share
    "net.patch": 4,
    "algorithm.tau": 0.2,
    "steps": STEPS,
    "batch": BATCH,
    "uratio": URATIO,
    "optim.lr": 0.005,
    "optim.warmup": 2,
    "ema.decay": 0.5,
    "eval_every": 3,
    "save_every": 3,
    "log_every": 1,
}


def training(config: Train, out: Path, rows: Path) -> Callable[[], None]:
    """Train, and write down the rows of every random crop that is read."""

    def train() -> None:
        read = Files.read

        def noted(self: Files, wanted: Any, images: Any, crops: Any = None) -> None:
            if crops is not None:
                with rows.open("a") as file:
                    file.write(json.dumps([wanted.tolist(), crops[:, :2].tolist()]) + "\n")
            read(self, wanted, images, crops)

        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(Files, "read", noted)
            fl.train(config, out=out)

    return train


def reads(path: Path) -> list[tuple[list[int], list[list[float]]]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def test_two_ranks_read_their_own_crops_and_learn_as_one(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree")
    config = changed(recipe("google-imagenet-fixmatch", "imagenet.1@12"), {**SMALL, "data.root": str(root)})
    training(config, tmp_path / "one", tmp_path / "one.rows")()
    port = free_port()
    places = [tmp_path / f"machine{rank}" for rank in range(2)]
    works = [training(config, tmp_path / "two", tmp_path / f"rank{rank}.rows") for rank in range(2)]
    for place in places:
        place.mkdir()
    started = [Rank(tmp_path, rank, port, works[rank], place=places[rank]) for rank in range(2)]
    assert [rank.end() for rank in started] == [(0, ""), (0, "")]

    # labeled and unlabeled ones of each step; some of later steps were read ahead
    whole, *halves = (reads(tmp_path / f"{name}.rows")[: 2 * STEPS] for name in ("one", "rank0", "rank1"))
    assert len(whole) == 2 * STEPS
    for (rows, crops), *own in zip(whole, *halves, strict=True):
        assert len(rows) in (BATCH, BATCH * URATIO) and all(2 * len(part[0]) == len(rows) for part in own)
        assert own[0][0] + own[1][0] == rows and own[0][1] + own[1][1] == crops

    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    logs = [{k: v for k, v in log.items() if not k.endswith("_ms")} for log in one.metrics("log")]
    assert len(logs) == STEPS and any(0 < log["mask"] < 1 for log in logs)
    for mine, theirs in zip(logs, two.metrics("log"), strict=True):
        for key, value in mine.items():
            assert theirs[key] == pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else True, key
    for which in ("raw", "ema"):
        for name, tensor in one.checkpoint().weights(which).items():
            torch.testing.assert_close(two.checkpoint().weights(which)[name], tensor, rtol=0, atol=1e-5)
