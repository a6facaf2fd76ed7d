"""fewlabels export: the file gives the model's probabilities, for whoever has it alone."""

from __future__ import annotations

import importlib.util
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

import fewlabels as fl
from algorithm_cases import SHAPE, toy, toy_training
from conftest import Trained
from fewlabels.inference import deploy
from fewlabels.inference.deploy import LARGEST_DIFFERENCE, noise
from fewlabels.inference.model import load_predictor
from fewlabels.runs.run import Run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "onnx_predict.py"
onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)


def wanted(path: Path, images: Any) -> Any:
    return load_predictor(Run(path)).logits(images).softmax(1).numpy()


@pytest.mark.slow
def test_a_program_of_torch(digits_run: Trained, command: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "new" / "m.pt2"
    said = command("export", digits_run.path, "--to", "torch", "-o", file, "--licence", "CC0 <by> me")
    assert said.code == 0 and said.err == ""
    assert said.out.startswith(f"wrote {file}, ") and "checked on 360 test pictures: the largest difference" in said.out
    assert [p.name for p in file.parent.iterdir()] == ["m.pt2"]
    extra = {"fewlabels.json": ""}
    module = torch.export.load(file, extra_files=extra).module()
    facts = json.loads(extra["fewlabels.json"])
    assert json.loads(facts["classes"]) == list("0123456789") and json.loads(facts["size"]) == [8, 8]
    assert facts["channels"] == "1" and facts["licence"] == "CC0 <by> me" and facts["step"] == "120"
    assert json.loads(facts["run"]) == Run(digits_run.path).identity
    for n in (1, 5):
        images = noise((1, 8, 8), n)
        found = module(torch.from_numpy(images)).detach().numpy()
        assert found.shape == (n, 10) and np.abs(found - wanted(digits_run.path, images)).max() < 1e-6
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_weights_alone(digits_run: Trained, command: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    said = command("export", digits_run.path, "--to", "safetensors", "-o", file, "--weights", "raw")
    assert said.code == 0 and said.err == "the file names no licence of its weights: --licence NAME puts one in\n"
    raw = Run(digits_run.path).checkpoint().weights("raw")
    read = safetensors.torch.load_file(file)
    assert {f"net.{name}" for name in read} == set(raw)
    assert all(torch.equal(raw[f"net.{name}"], value) for name, value in read.items())
    with safetensors.safe_open(file, "pt") as opened:  # type: ignore[no-untyped-call]
        assert opened.metadata()["weights"] == "raw"


@pytest.mark.slow
@onnx
def test_onnx_is_the_default_and_lies_in_the_run(
    photo_run: Trained, command: Callable[..., Any], tmp_path: Path, photos: Path
) -> None:
    """The example asks it about pictures of other sizes, turned ones too, as `fewlabels predict` does."""
    assert command("export", photo_run.path).code == 0
    file = photo_run.path / "model.onnx"
    again = command("export", photo_run.path)
    assert again.code == 2 and again.sentence == f"{file} exists: name another file with -o, or remove it"
    pictures = sorted((photos / "test").rglob("*.png"))
    rng, odd = np.random.default_rng(0), []
    for i, size in enumerate([(40, 23), (16, 61), (7, 9), (33, 33)]):
        odd.append(tmp_path / f"odd{i}.png")
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8).repeat(2, 0).repeat(2, 1))
        exif = Image.Exif()
        exif[0x0112] = 3 + 3 * (i % 2)  # upside down, or on its side
        picture.save(odd[-1], exif=exif)
    grey = tmp_path / "grey.png"
    Image.fromarray(rng.integers(0, 256, (20, 30), np.uint8)).save(grey)
    every = [*map(str, pictures), *map(str, odd), str(grey)]
    told = subprocess.run([sys.executable, EXAMPLE, file, *every], capture_output=True, text=True, check=True).stdout
    rows = [line.rsplit(",", 2) for line in told.splitlines()]
    assert [row[0] for row in rows] == every
    classifier = fl.load(photo_run.path)
    ours = classifier.predict_proba(every)
    assert [row[1] for row in rows] == list(classifier.predict(every))
    np.testing.assert_allclose([float(row[2]) for row in rows], ours.max(1), atol=1.1e-5)
    file.unlink()


@onnx
def test_the_example_refuses_what_it_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that were padded in the training would be cut, and their numbers wrong."""
    import onnxruntime

    said = {"classes": '["a", "b"]', "size": "[8, 8]", "channels": "3", "fit": "pad"}
    session = SimpleNamespace(get_modelmeta=lambda: SimpleNamespace(custom_metadata_map=said))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path: session)
    monkeypatch.setattr(sys, "argv", ["onnx_predict.py", "m.onnx"])
    with pytest.raises(AssertionError, match="brought to its size by pad"):
        runpy.run_path(str(EXAMPLE))
    said["fit"] = "crop"
    runpy.run_path(str(EXAMPLE))


def test_the_page_shows_the_example() -> None:
    code = EXAMPLE.read_text()
    assert f"```python\n{code}```" in (ROOT / "docs" / "export.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "channels", "form"),
    [
        pytest.param("wrn-10-1", 4, "onnx", marks=onnx),
        pytest.param("timm:test_efficientnet", 1, "onnx", marks=onnx),
        ("timm:test_vit", 3, "torch"),
    ],
)
def test_nets_and_channels(net: str, channels: int, form: deploy.Form, tmp_path: Path) -> None:
    images, labels = noise((channels, 16, 16), 30), [i % 3 if i < 12 else None for i in range(30)]
    fl.fit(images, labels, net=net, steps=2, out=tmp_path / "run", progress=False)
    run = Run(tmp_path / "run")
    done = deploy.export(run, form, tmp_path / f"m{deploy.SUFFIXES[form]}", noise(run.data["shape"], 20))
    assert done.pictures == 20 and done.largest < 1e-5 and done.megabytes > 0.01


@pytest.mark.slow
def test_bypasses_are_merged(tmp_path: Path) -> None:
    net = fl.Net("timm:test_vit", patch=4, train="lora", pretrained=False)
    torch.manual_seed(0)
    from fewlabels import nets

    body = nets.build("timm:test_vit", classes=3, shape=SHAPE, patch=4)
    safetensors.torch.save_file(body.state_dict(), tmp_path / "body.safetensors")
    net = replace(net, pretrained=str(tmp_path / "body.safetensors"))
    run = fl.train(toy_training(fl.FixMatch(), steps=3, net=net), out=tmp_path / "run", source=toy())
    images = noise(SHAPE, 9)
    for checkpoint in ("last", "best"):
        file = tmp_path / f"{checkpoint}.safetensors"
        done = deploy.export(run, "safetensors", file, images, checkpoint=checkpoint)
        assert done.largest < 1e-5 and not any("lora" in name for name in safetensors.torch.load_file(file))


def test_a_file_that_is_wrong_is_not_left(
    digits_run: Trained, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = deploy.Deployed.forward
    monkeypatch.setattr(
        deploy.Deployed, "forward", lambda self, x: forward(self, x) + 2 * LARGEST_DIFFERENCE * torch.eye(10)[0]
    )
    said = command("export", digits_run.path, "--to", "safetensors", "-o", tmp_path / "w.safetensors")
    assert said.code == 2 and "gives other probabilities than the model" in said.sentence
    assert not list(tmp_path.iterdir())


def test_asked_wrongly(
    digits_run: Trained, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("export", tmp_path / "none").sentence == f"there is no run folder {tmp_path / 'none'}"
    file = tmp_path / "model.onnx"
    said = command("export", digits_run.path, "--to", "torch", "-o", file)
    assert (said.code, said.sentence) == (2, f"-o {file} must end with .pt2 for --to torch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = command("export", digits_run.path)
    assert said.sentence == "--to onnx needs the packages onnx, onnxscript, onnxruntime: pip install 'fewlabels[onnx]'"


def test_pictures_that_are_gone(photo_run: Trained, command: Callable[..., Any], tmp_path: Path) -> None:
    """The file is checked all the same, on noise, and that is said."""
    import shutil

    run = shutil.copytree(photo_run.path, tmp_path / "run")
    name = json.loads((run / "config.json").read_text())["train"]["data"]["name"]
    moved = Path(name).rename(tmp_path / "elsewhere")
    try:
        said = command("export", run, "--to", "safetensors")
    finally:
        moved.rename(name)
    assert said.code == 0 and "checked on 64 pictures of noise" in said.out
    assert said.err.startswith("note: the pictures of the run are not there (")
