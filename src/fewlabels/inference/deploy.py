"""A trained model as one file that runs without fewlabels: pixels in, probabilities out, all that it takes inside."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import fewlabels
from fewlabels.data.source import Images
from fewlabels.inference.model import Predictor, load_predictor, make_model
from fewlabels.runs.run import Run
from fewlabels.runtime import files
from fewlabels.types import Rule

Form = Literal["onnx", "torch", "safetensors", "openvino"]
SUFFIXES: Mapping[Form, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors", "openvino": ".xml"}
NEEDED: Mapping[Form, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch": (),
    "safetensors": (),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Modules of packages that are no dependencies."""

LARGEST_DIFFERENCE = 1e-4
"""Of a probability, between a file and the model that it was made of."""

OPSET = 20
Runs = Callable[[Images], NDArray[np.float32]]


class Deployed(nn.Module):
    """Pixels to probabilities: uint8 ``[N, H, W, C]`` in, float32 ``[N, K]`` out, which sum to 1.

    The net in evaluation mode, its bypasses merged, in float32; normalisation before it and softmax behind it.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, run: Run, predictor: Predictor) -> None:
        super().__init__()
        config = replace(run.config, net=run.config.net.whole())
        with torch.random.fork_rng(devices=[]):
            plain, _ = make_model(config, run.split, len(predictor.classes), predictor.shape, blank=True)
        plain.load_state_dict(predictor.model.merged())
        self.model, self.rounded = plain.eval().requires_grad_(False), predictor.model.fixed
        self.rule: Rule = plain.rule
        self.register_buffer("scale", predictor.normalize.scale.clone())
        self.register_buffer("bias", predictor.normalize.bias.clone())

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() * self.scale + self.bias).permute(0, 3, 1, 2)
        features: Tensor = self.model.net.features(x)  # type: ignore[operator]
        if self.rounded:  # as they are kept on the disk, and evaluated
            features = features.half().float()
        return self.rule(self.model, features).softmax(1)


class Exported(NamedTuple):
    """What was written, and how far it is from the model."""

    path: Path
    megabytes: float
    largest: float
    """Difference of a probability on the pictures that it was checked with."""
    pictures: int


def missing(form: Form) -> list[str]:
    """Packages that `form` needs and that are not installed."""
    return [name for name in NEEDED[form] if importlib.util.find_spec(name) is None]


def facts(run: Run, predictor: Predictor, licence: str) -> dict[str, str]:
    """What a file says of itself, as text: JSON where it is more than a word.

    classes, size [H, W], channels, mean and std by channel in units of pixels in [0, 1], fit (how pictures are brought
    to the size), licence, net, run (digests of what was trained), step, weights, fewlabels (the version).
    """
    channels, height, width = predictor.shape
    config = run.config
    said: dict[str, Any] = {
        "classes": list(predictor.classes),
        "size": [height, width],
        "channels": channels,
        "mean": run.data["mean"],
        "std": run.data["std"],
        "fit": config.data.fit,
        "licence": licence,
        "net": config.net.name,
        "run": run.identity,
        "step": predictor.step,
        "weights": predictor.weights,
        "fewlabels": fewlabels.__version__,
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def export(
    run: Run,
    form: Form,
    path: Path,
    images: Images,
    *,
    licence: str = "",
    checkpoint: str = "last",
    weights: str = "ema",
) -> Exported:
    """Write the model of a run to a file, which is then run on `images` and compared with the model.

    Args:
        path: a new file; beside an OpenVINO one its weights lie with the suffix .bin.
        images: uint8 ``[N, H, W, C]``, N above 0, of the model's size.
        licence: of the weights, for the file to say.
        checkpoint, weights: as for `load_predictor`.

    Raises:
        ValueError: for a file that is there, or where the file and the model differ by more than `LARGEST_DIFFERENCE`;
            nothing is left then.
        RunError: as `load_predictor`.
    """
    predictor = load_predictor(run, checkpoint=checkpoint, weights=weights)
    names = [path.name, path.with_suffix(".bin").name] if form == "openvino" else [path.name]
    if there := next((file for file in map(path.with_name, names) if os.path.lexists(file)), None):
        raise ValueError(f"{there} exists: name another file with -o, or remove it")
    said = facts(run, predictor, licence)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        first = Path(folder) / path.name
        # the new file is seen by nobody before it is right
        loaded = _WRITERS[form](Deployed(run, predictor), images[:2], said, first)
        largest = compared(f"{form} file", loaded, predictor, images)
        size = sum((first.with_name(name)).stat().st_size for name in names) / 1e6
        for name in reversed(names):
            os.replace(first.with_name(name), path.with_name(name))
    return Exported(path, size, largest, len(images))


def compared(what: str, loaded: Runs, predictor: Predictor, images: Images) -> float:
    """How far the probabilities of `loaded` are from the model's at most. Raises ValueError where that is too far."""
    wanted = predictor.logits(images).softmax(1).numpy()
    largest = max(float(np.abs(loaded(images[rows]) - wanted[rows]).max()) for rows in _batches(len(images)))
    if not largest <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the {what} gives other probabilities than the model: they differ by up to {largest:.2g}, and "
            f"{LARGEST_DIFFERENCE:g} is the most; nothing was written"
        )
    return largest


def _batches(count: int) -> Iterator[slice]:
    """Batches of several sizes: a file that knows only one is found."""
    start, size = 0, 1
    while start < count:
        yield slice(start, min(start + size, count))
        start, size = start + size, min(size * 3, 64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of themselves on the way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _program(deployed: Deployed, images: Images) -> Any:
    """The whole model as torch's program for any number of images."""
    batch = torch.export.Dim("batch", min=1)
    example = torch.from_numpy(np.repeat(images[:1], 2, 0))  # of one image torch would make a constant
    with _quiet(), torch.no_grad():
        return torch.export.export(deployed, (example,), dynamic_shapes=({0: batch},))


def _as_torch(deployed: Deployed, images: Images, said: Mapping[str, str], path: Path) -> Runs:
    torch.export.save(_program(deployed, images), path, extra_files={"fewlabels.json": json.dumps(dict(said))})
    module = torch.export.load(path).module()

    def run(images: Images) -> NDArray[np.float32]:
        with torch.no_grad():
            return cast(Tensor, module(torch.from_numpy(images))).numpy()

    return run


def _as_onnx(deployed: Deployed, images: Images, said: Mapping[str, str], path: Path) -> Runs:
    import onnxruntime

    files.write_file(path, _onnx(deployed, images, said).SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: cast(NDArray[np.float32], session.run(["probabilities"], {"images": images})[0])


def _onnx(deployed: Deployed, images: Images, said: Mapping[str, str]) -> Any:
    with _quiet():
        program = torch.onnx.export(
            _program(deployed, images),
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for name, value in said.items():
        model.metadata_props.add(key=name, value=value)
    return model


def _as_openvino(deployed: Deployed, images: Images, said: Mapping[str, str], path: Path) -> Runs:
    import io

    import openvino

    model = openvino.convert_model(io.BytesIO(_onnx(deployed, images, said).SerializeToString()))
    for name, value in said.items():
        model.set_rt_info(value, ["fewlabels", name])
    openvino.save_model(model, path, compress_to_fp16=False)
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: cast(NDArray[np.float32], compiled(images)[0])


def _as_safetensors(deployed: Deployed, images: Images, said: Mapping[str, str], path: Path) -> Runs:
    """Weights alone, for those who have the net: names as in the net, heads under `heads.`."""
    weights = {name.removeprefix("net."): t.contiguous() for name, t in deployed.model.state_dict().items()}
    files.write_file(path, safetensors.torch.save(weights, metadata=dict(said)))
    read = safetensors.torch.load_file(path)
    deployed.model.load_state_dict({k if k.startswith("heads.") else f"net.{k}": v for k, v in read.items()})

    def run(images: Images) -> NDArray[np.float32]:
        with torch.no_grad():
            return cast(Tensor, deployed(torch.from_numpy(images))).numpy()

    return run


_WRITERS: Mapping[Form, Callable[[Deployed, Images, Mapping[str, str], Path], Runs]] = {
    "onnx": _as_onnx,
    "torch": _as_torch,
    "safetensors": _as_safetensors,
    "openvino": _as_openvino,
}


def noise(shape: Sequence[int], count: int = 64) -> Images:
    """Pictures to check with where there are none, uint8 ``[count, H, W, C]``."""
    channels, height, width = shape
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
