"""A trained model on the Hugging Face hub: a run folder that holds what it takes to predict, and nothing else.

What goes there says nothing of the machine and nothing of the pictures: no paths, names, thumbnails or curves. What
comes from there is settings, checked like any run's, and tensors; nothing in it is run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch

import fewlabels
from fewlabels.config.plain import to_dict
from fewlabels.config.settings import Train
from fewlabels.data.names import is_folder, stem
from fewlabels.data.source import Images
from fewlabels.inference.body import BODY
from fewlabels.inference.deploy import Exported, compared
from fewlabels.inference.model import Predictor, load_predictor
from fewlabels.runs.extract import Extract
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import files
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import reason

PREFIX = "hf:"
"""What a model of the hub begins with where a run folder may stand."""

FETCHED = (
    "config.json",
    "data.json",
    "split.json",
    BODY,
    "checkpoints/*/meta.json",
    "checkpoints/*/weights.safetensors",
)
"""Files of a repository that are fetched; no others are asked for."""

TOLD = ("source", "classes", "folders", "shape", "mean", "std", "values", "labeled_counts", "test", "body")
"""What data.json says there, of what it says here."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def repository(name: str, what: str) -> str:
    """`name`, if it is OWNER/NAME; `what` is the word that was given. Raises ValueError."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ValueError(f"{what} must name a repository of the hub, OWNER/NAME in letters, digits, _, - and .")
    return name


def bundle(run: Run, path: Path, images: Images) -> Exported:
    """Write the run folder that goes to the hub, with the averaged weights of the last checkpoint; it is then asked
    about `images` and compared with the model.

    Args:
        path: a new folder.
        images: uint8 ``[N, H, W, C]``, N above 0, of the model's size.

    Raises RunError as `load_predictor`, ValueError where both differ by more than `deploy.LARGEST_DIFFERENCE`.
    """
    predictor = load_predictor(run)
    model = predictor.model
    data = {name: run.data[name] for name in TOLD if name in run.data}
    if body := model.fixed and isinstance(data["body"]["weights"], str):
        data["body"] = {**data["body"], "weights": BODY}
    elif not model.fixed:
        data.pop("body", None)
    split = replace(run.split, source=str(data.get("source", "")), lineage=())
    settings = {"fewlabels": fewlabels.__version__, "train": to_dict(_bare(run.config, predictor)), "baseline": False}
    content = {
        "config.json": files.json_text(settings),
        "split.json": split.to_json().encode(),
        "data.json": files.json_text(data),
    }
    weights = model.learned() if model.fixed else model.merged()
    Extract(content, predictor.step, {"ema": weights}, {"split": split.fingerprint}).write(path)
    if body:
        kept = {f"ema.{name}": value.contiguous() for name, value in model.state_dict().items() if name[:4] == "net."}
        files.write_file(path / BODY, safetensors.torch.save(kept))
    again = load_predictor(Run(path))
    largest = compared("folder", lambda x: again.logits(x).softmax(1).numpy(), predictor, images)
    return Exported(path, sum(f.stat().st_size for f in contents(path)) / 1e6, largest, len(images))


def _bare(config: Train, predictor: Predictor) -> Train:
    """The settings without paths, of a net that is whole unless its body is fixed."""
    net, data = config.net, config.data
    told = data.name
    if is_folder(told) and not told.startswith(PREFIX):
        told = stem(told)
        told += "/" * (not is_folder(told))
    learned: Any = BODY if predictor.model.fixed and isinstance(net.pretrained, str) else bool(net.pretrained)
    algorithm: Any = config.algorithm
    if getattr(algorithm, "teachers", ()):
        algorithm = replace(algorithm, teachers=())
    return replace(
        config,
        algorithm=algorithm,
        data=replace(data, name=told, root=None, split=None, labeled=None, test=None, classes=None),
        net=replace(net if predictor.model.fixed else net.whole(), pretrained=learned),
    )


def contents(path: Path) -> list[Path]:
    """The files below a folder, sorted."""
    return sorted(file for file in path.rglob("*") if file.is_file())


def upload(path: Path, name: str, what: str) -> str:
    """Make the private repository OWNER/NAME and put the files of a folder there; its address.

    Raises ValueError where it holds something already, or the hub refuses; `what` names it in the sentence.
    """
    from huggingface_hub import HfApi

    with _asking(what):
        api = HfApi()
        api.create_repo(name, private=True, exist_ok=True)
        if there := [file for file in api.list_repo_files(name) if file != ".gitattributes"]:
            raise ValueError(f"it holds files already ({there[0]}): name another one")
        done = api.upload_folder(repo_id=name, folder_path=path, commit_message="A model trained with fewlabels")
    return str(done.repo_url)


def located(name: str) -> Path:
    """The run folder of a name: that of a model of the hub, ``hf:OWNER/NAME`` perhaps with ``@REVISION``, fetched into
    the hub's cache; else the name itself.

    Raises ValueError where the hub has no such model, or where it names files of this machine.
    """
    if not name.startswith(PREFIX):
        return expanded(name)
    from huggingface_hub import snapshot_download

    plain, _, revision = name.removeprefix(PREFIX).partition("@")
    repository(plain, name)
    with _asking(name):
        path = Path(snapshot_download(plain, revision=revision or None, allow_patterns=list(FETCHED)))
        if not (path / "config.json").is_file():
            raise ValueError("it is no model of fewlabels: it has no config.json")
    run = Run(path)
    places = [run.config.net.pretrained, (run.data.get("body") or {}).get("weights")]
    if any(isinstance(place, str) and place != BODY for place in places):
        raise RunError(f"{name} wants weights from a file of this machine, and is refused")
    return path


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    """Inside, the hub's bars are not drawn, and its errors are told in one sentence about `what`."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    except Exception as error:  # its own kinds, those of the network, and ours
        raise ValueError(f"{what}: {reason(error)}") from None
    finally:
        if not before:
            enable_progress_bars()
