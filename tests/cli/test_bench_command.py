"""`benchmarks/bench.py` with sizes that take no time: what it prints, writes and refuses. No figure is asserted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import cost
from bench.command import CLASSES
from fewlabels.algorithms import FixMatch
from fewlabels.commands.options import parse

ROOT = Path(__file__).parents[2]
Command = Callable[..., Any]
SHORT = ("--device", "cpu", "--rounds", 1, "--no-progress")


def measure(bench: Command, tmp_path: Path, *args: object) -> dict[str, Any]:
    """The JSON of a run, printed and written; a run of so little work is rarely valid."""
    out = tmp_path / "out.json"
    said = bench(*args, *SHORT, "--json", "--out", out)
    assert said.code in (0, 1), said.err
    printed: dict[str, Any] = json.loads(said.out)
    assert printed == json.loads(out.read_text())
    assert printed["valid"] == (said.code == 0) == (abs(printed["control"] - 1) <= 0.05)
    assert torch.get_num_threads() == 1 == printed["machine"]["threads"]
    return printed


@pytest.mark.slow
def test_augment(bench: Command, tmp_path: Path) -> None:
    found = measure(bench, tmp_path, "augment", "--batch", 8, "--check", 20)
    for name in ("kekmodel", "three_op"):
        slow, torchvision, fast = found[name]["rows"]
        assert (
            found[name]["ratio"] == fast["ratio"]["median"] == pytest.approx(slow["cpu"][0] / fast["cpu"][0], rel=1e-3)
        )
        assert torchvision["name"].startswith("torchvision")
        assert found["exact"][name] == {"views": 40, "differing": 0}


@pytest.mark.slow
def test_data(bench: Command, tmp_path: Path) -> None:
    args = ("--batch", 2, "--uratio", 2, "--check", 10, "--workers", 0, 1)
    found = measure(bench, tmp_path, "data", *args)
    assert set(found["ratio_by_workers"]) == {"0", "1"}
    assert [r["name"] for r in found["wall"]["rows"]] == ["DataLoader, 0 workers", "DataLoader, 1 workers", "fewlabels"]


@pytest.mark.slow
def test_step(bench: Command, tmp_path: Path) -> None:
    args = ("--net", "tiny", "--batch", 4, "--uratio", 2, "--check", 3, "--no-compile", "--side", 16)
    found = measure(bench, tmp_path, "step", *args)
    assert len(found["rows"]) == len(found["compared"]) + 1 == 9
    assert all(c["difference"] <= c["tolerance"] and c["steps"] == 3 for c in found["compared"])
    assert sum(found["switches"][found["rows"][2]["name"]].values()) == 2
    assert found["switches"][found["rows"][-1]["name"]] == {
        "bn": "separate-weak",
        "precision": "bf16",
    }


@pytest.mark.slow
def test_cost(bench: Command, tmp_path: Path) -> None:
    args = ("--net", "tiny", "--batch", 2, "--uratio", 2, "--side", 16, "--steps", 1, "--only", "mixmatch", "abc")
    found = measure(bench, tmp_path, "cost", *args)
    assert [row["name"] for row in found["rows"]] == ["mixmatch", "abc"]
    for row in found["rows"]:
        assert row["cost"] == pytest.approx(row["ratio"]["median"] / row["fixmatch"]["median"])
        assert 0 < row["passes"] < 4 * row["seconds"]
    assert "nothing such" in bench("cost", "--only", "nothing such", "--out", tmp_path / "x.json").sentence


@pytest.mark.slow
def test_the_passes_of_a_step() -> None:
    """One of labeled, weak and strong images together; with the weak ones apart, one more, without gradient."""
    for bn, expected in (("joint", [(3 + 2 * 6, True)]), ("separate-weak", [(6, False), (3 + 6, True)])):
        options = cost.Cost(net="tiny", side=16, uratio=2, device="cpu")
        trainer = cost.trainer_of(FixMatch(bn=bn), options, 3, torch.device("cpu"))
        with cost.watched(trainer) as passes:
            trainer.step(0)
        assert [(len(one.images), one.gradient) for one in passes] == expected
        before = [p.detach().clone() for p in trainer.model.parameters()]
        cost.Passes(trainer, list(passes))()
        assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.slow
def test_ceiling(bench: Command, tmp_path: Path) -> None:
    args = ("--net", "tiny", "--batch", 2, "--matrix", 32, "--megabytes", 1, "--side", 16)
    found = measure(bench, tmp_path, "ceiling", *args)
    copy, product = found["measured"][:2]
    assert found["bytes_per_second"] == pytest.approx(2 * 2**20 / copy["rows"][0]["cpu"][0], rel=0.01)
    assert found["flops"] == pytest.approx(2 * 32**3 / product["rows"][0]["cpu"][0], rel=0.01)
    assert len(found["floors"]) == 4 and found["launches_per_second"] is None


@pytest.mark.slow
def test_end_to_end(bench: Command, tmp_path: Path) -> None:
    args = ("--batch", 4, "--uratio", 2, "--side", 16, "--steps", 1, "--log-every", 2, "--check", 9)
    found = measure(bench, tmp_path, "e2e", *args)
    assert found["exact"] == {"views": 18, "differing": 0}
    assert found["bench"] == "e2e" and found["options"]["net"] == "tiny"
    assert set(found["seconds"]) == {"draw", "views", "average", "log", "forward, backward, optimizer"}
    assert [r["name"] for r in found["whole"]["rows"]] == ["usual", "fewlabels"]
    assert found["images_per_second"] * found["hours_for_2_20"] == pytest.approx(4 * 3 * 2**20 / 3600)


@pytest.mark.slow
def test_sizes_of_the_data_set(bench: Command, tmp_path: Path) -> None:
    args = ("--images", 300, 5000, "--batch", 4, "--uratio", 2, "--side", 16, "--steps", 1)
    found = measure(bench, tmp_path, "e2e", *args)
    assert found["bench"] == "scale"
    small, large = found["memory"]["300"], found["memory"]["5000"]
    assert (small["uint8"], large["uint8"]) == (300 * 16 * 16 * 3, 5000 * 16 * 16 * 3)
    assert large["resident"] == 5000 * 16 * 16 * 4 and large["over_uint8"] == pytest.approx(4 / 3)


CLONE = """
import torch
from dataset.cifar import Photos

DATASET_GETTERS = {"cifar10": lambda args, root: (Photos(False), Photos(True), None)}


def get_cosine_schedule_with_warmup(optimizer, warmup, steps):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def train(args, labeled, unlabeled, test, model, optimizer, ema, schedule):
    x, u = iter(labeled), iter(unlabeled)
    while True:
        try:
            images, labels = x.next()
        except:
            x = iter(labeled)
            images, labels = x.next()
        (weak, strong), _ = u.next()
        torch.nn.functional.cross_entropy(model(torch.cat((images, weak, strong)))[: len(labels)], labels).backward()
        optimizer.step()
        ema.update(model)
"""
DATASET = """
import torch
from torchvision import datasets


class Photos(datasets.CIFAR10):
    def __init__(self, pair):
        super().__init__("nowhere", download=True)
        self.pair = pair

    def __getitem__(self, row):
        image = torch.from_numpy(self.data[row]).permute(2, 0, 1).float()
        return ((image, image) if self.pair else image), self.targets[row]
"""
AVERAGE = """
class ModelEMA:
    def __init__(self, args, model, decay):
        pass

    def update(self, model):
        pass
"""


@pytest.mark.slow
def test_peers(bench: Command, tmp_path: Path) -> None:
    """A clone as small as can be, with the habits of the real one: a bare except, and `next` under its old name."""
    clone = tmp_path / "clone"
    for name, text in {
        "train.py": CLONE,
        "dataset/__init__.py": "",
        "dataset/cifar.py": DATASET,
        "models/__init__.py": "",
        "models/ema.py": AVERAGE,
        "models/wideresnet.py": "",
    }.items():
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    args = ("--kekmodel", clone, "--net", "tiny", "--batch", 2, "--uratio", 2, "--steps", 1, "--check", 5)
    found = measure(bench, tmp_path, "peers", *args, "--workers", 0)
    names = ["kekmodel as shipped, 4 + 4 workers", "kekmodel tuned, 0 + 0 workers"]
    assert [r["name"] for r in found["data"]] == [r["name"] for r in found["step"]] == names
    assert found["options"]["kekmodel"] is None  # a path of this machine is nobody's business

    (clone / "models" / "ema.py").write_text("import a_package_that_is_not_there\n")
    said = bench("peers", *args, *SHORT)
    assert said.code == 2 and "needs the package a_package_that_is_not_there" in said.sentence


@pytest.mark.slow
def test_tables_on_the_terminal(bench: Command, tmp_path: Path) -> None:
    said = bench("augment", "--batch", 4, "--check", 5, *SHORT, "--out", tmp_path / "a.json")
    assert "kekmodel: Pillow, image by image" in said.out and "times as fast as Pillow" in said.out
    assert "control" in said.out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["agument"], "bench has no command 'agument'; did you mean augment?"),
        (["augment", "--rounds", 0], "Augment.rounds must be a whole number of at least 1, got 0"),
        (["augment", "--batches", 3], "bench augment has no option --batches"),
        (["step", "--net", "wrn-28"], "net 'wrn-28' is unknown"),
        (["peers"], "bench peers needs a clone to measure"),
        (["peers", "--usb", "."], ". is not a clone of the project"),
        (["e2e", "--images", 500], "--images needs two sizes at least"),
        (["augment", "--device", "cuda:77"], "device cuda:77 is not there"),
    ],
)
def test_wrong_invocations_get_one_sentence(bench: Command, args: list[Any], sentence: str) -> None:
    said = bench(*args)
    assert said.code == 2 and sentence in said.sentence


def test_render(bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "works in the root of a checkout" in bench("render").sentence
    (tmp_path / "docs").mkdir()
    for readme in ("README.md", "README.zh-CN.md"):
        Path(readme).write_text("no markers\n")
    Path("docs/performance.md").write_text("<!-- bench data -->\n<!-- end bench data -->\n")
    said = bench("render", "--check")
    assert said.code == 1 and said.out == "out of date: docs/performance.md\n"
    assert bench("render").out == "written: docs/performance.md\n"
    assert "Not measured yet." in Path("docs/performance.md").read_text()
    assert bench("render", "--check").code == 0


def test_help_names_every_measurement(bench: Command) -> None:
    said = bench()
    assert said.code == 0
    assert all(name in said.out for name in ("augment", "data", "step", "ceiling", "e2e", "peers", "render"))
    assert bench("augment", "--help").code == 0


def test_the_commands_of_the_document_are_understood() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    lines = re.findall(r"^python benchmarks/bench\.py (\w+)([^#\n]*)", text, re.M)
    assert {name for name, _ in lines} == {"augment", "data", "step", "cost", "ceiling", "e2e", "peers"}
    for name, options in lines:
        parse(CLASSES[name], shlex.split(options), prog=name)


@pytest.mark.slow
def test_the_script_runs_beside_the_folder_of_its_name(tmp_path: Path) -> None:
    """A process of its own, from elsewhere: no help of pytest's in finding the modules."""
    script = str(ROOT / "benchmarks" / "bench.py")
    done = subprocess.run([sys.executable, script, "agument"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("fewlabels: bench has no command 'agument'; did you mean augment?")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_the_package_it_says_what_to_do(tmp_path: Path) -> None:
    """-S: a Python without installed packages."""
    script = str(ROOT / "benchmarks" / "bench.py")
    done = subprocess.run([sys.executable, "-S", script, "step"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "bench.py: fewlabels is not installed for this Python; run `pip install -e .` in the checkout first\n"
    )


def test_the_package_holds_no_measurement(command: Command) -> None:
    """Neither imports any, so that it works where `benchmarks` is not."""
    imported = re.compile(r"^\s*(?:from|import) bench\b", re.M)
    sources = list((ROOT / "src").rglob("*.py"))
    assert len(sources) > 100
    assert not [path for path in sources if "bench" in (*path.parent.parts[-2:], path.stem)]
    assert not [path for path in sources if imported.search(path.read_text())]
    said = command("bench", "step", "--device", "cpu")
    assert said.code == 2 and said.out == ""
    assert said.sentence.startswith(
        "there is no command 'bench'; speed is measured in a checkout, with `python benchmarks/bench.py` (known: train,"
    )
