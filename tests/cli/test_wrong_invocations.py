"""What is asked wrongly gets one sentence on one line of standard error: thing, what is allowed, what was given."""

# ruff: noqa: E501  (the sentences stand on one line here too)

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewlabels
from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.recipes import recipe

KNOWN = f"(known: {', '.join(ALGORITHMS)})"

# Command line, sentence. In a folder with: run, a finished run on digits@40-100 with 120 steps; unfinished, the same
# before its end; damaged copies of it; ok/, a small folder of pictures, and wrong ones. What follows "..." is left open.
WRONG: list[tuple[str, str]] = []


def wrong(text: str) -> None:
    """Adds pairs of lines."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    WRONG.extend(zip(lines[::2], lines[1::2], strict=True))


# the command and its options
wrong(f"""
trian
there is no command 'trian'; did you mean train? (known: COMMANDS)
--resume run
there is no command '--resume' (known: COMMANDS)
train fixmach
train has no algorithm 'fixmach'; did you mean fixmatch? {KNOWN}
train extra words
train has no algorithm 'extra' {KNOWN}
train fixmatch --seeds 0 1 2
train has no option that 1 is a further value of; several seeds are one word, 0..4 or 0,2
train fixmatch --steps 10 20
train has no option that 20 is a further value of; several seeds are one word, 0..4 or 0,2
train fixmatch mixmatch
train takes one algorithm, and 'mixmatch' is a second one
train --tau 0.9 mixmatch
name the algorithm first: mixmatch before --tau
train --stps 5
train has no option --stps; did you mean --steps?
train --tua 0.9
train has no option --tua; did you mean --tau?
train --xyzzy
train has no option --xyzzy
train --epochs 5
train has no option --epochs; --steps counts steps of --batch labeled images; --time 10m takes as many as fit into ten minutes
train --device 0
the device must be auto, cpu, cuda or cuda:N, got '0'; did you mean cuda:0?
train --time-limit 10m
train has no option --time-limit; --time 10m takes as many steps as fit into ten minutes
train --time 10
--time must be a length of time such as 90s, 10m, 1h30m or 2h, got '10'
train --time 0s
--time must be more than 0s and at most 1000h, got '0s'
train --time 10m --steps 5
--time says how many steps are taken: leave out --steps, or --time
train --time=10m --seeds 0..2
--time measures for one run, and all runs of --seeds must take the same steps: give --steps (those that one run with --time has taken)
train --time 10m --folds 1..2
--time measures for one run, and all runs of --folds must take the same steps: give --steps (those that one run with --time has taken)
train frozen --net torchvision:resnet18 --net.pretrained True --time 10m
a time cannot be kept with frozen, which takes no steps: it is through when the features of all images are computed
train --time 10m --dry-run
--time measures whole steps on the images, and --dry-run reads none: leave one of them out
train --imgsz 64
train has no option --imgsz; --data.image-size is the side of own pictures in pixels
train ok/
train has no algorithm 'ok/'; data are named with --data ok/
train digits@40
train has no algorithm 'digits@40'; data are named with --data digits@40
data show digits --overwrite
data show has no option --overwrite
train --json
--json says how --dry-run prints the costs of one run: use it with that alone, or leave it out
train --seeds 0,1 --dry-run --json
--json says how --dry-run prints the costs of one run: use it with that alone, or leave it out
train --steps 0 --tau 0.9 --steps=-3
--steps must be a whole number from 0 to 1000000000000, got -3
train mixmatch --tau 0.5
--tau is an option of pseudo-label, uda, fixmatch, flexmatch, adamatch, defixmatch, comatch, simmatch, refixmatch, sequencematch, fullmatch, shrinkmatch, crmatch, iomatch and cadr, not of the algorithm that is trained here
train --mu 7
train has no option --mu; --mu of kekmodel/FixMatch-pytorch is --uratio here
split digits@40 --size 10
split has no option --size; --size of google-research/fixmatch is --labels here: of create_split.py, or SIZE of the data name
train --recipe google-vit-svhn
there is no recipe 'google-vit-svhn'; did you mean google-vat-svhn? (`fewlabels list recipes` prints them)
train --recipe -
there is no recipe '-' (`fewlabels list recipes` prints them)
train fixmatch --recipe google-vat-svhn
the recipe google-vat-svhn is one of vat, not of fixmatch
train --recipe google-vat-svhn --tau 0.9
--tau is an option of pseudo-label, uda, fixmatch, flexmatch, adamatch, defixmatch, comatch, simmatch, refixmatch, sequencematch, fullmatch, shrinkmatch, crmatch, iomatch and cadr, not of the algorithm that is trained here
train --recipe
--recipe needs a value
train --steps
--steps needs a value
train --resume
--resume needs a value
evaluate
evaluate needs RUN: Run folder
evaluate run run
evaluate has no argument 'run'
evaluate run --tau 1
evaluate has no option --tau
predict
predict needs RUN: Run folder, or hf:OWNER/NAME (perhaps @REVISION), a model of the Hugging Face hub
predict run
predict needs image files or folders after the run, or --list FILE
predict run ok -o
-o/--output needs a value
split digits@40 x
split has no argument 'x'
""")

# values
wrong("""
train --steps 0
--steps must be at least 1 for fixmatch, which learns in steps alone, got 0
train --steps many
--steps must be a whole number, got 'many'
train --steps 1.5
--steps must be a whole number, got '1.5'
train --batch 0
--batch must be a whole number of at least 1, got 0
train --seed -1
--seed must be a whole number from 0 to 4294967295, got -1
train --tau 1.5
--tau must be a number from 0 to 1, got 1.5
train --tau nan
--tau must be a number from 0 to 1, got nan
train --tau high
--tau must be a number, got 'high'
train --optim.lr 0
--optim.lr must be a number above 0, got 0.0
train --optim.lr=-1
--optim.lr must be a number above 0, got -1.0
train --optim.momentum 1
--optim.momentum must be a number from 0 to below 1, got 1.0
train --optim.schedule step
--optim.schedule must be one of 'cosine', 'linear', 'stairs', 'constant', got 'step'
train --optim.beta1 0.8
--optim.beta1 0.8 is for adam and adamw, not for sgd
train --optim adam --optim.momentum 0.8
--optim.momentum 0.8 is for sgd, not for adam
train --optim adamw --optim.no-nesterov
--optim.nesterov False is for sgd, not for adamw
train --optim.lr-end 0.1
--optim.lr-end 0.1 is for the schedule linear, not for cosine
train --ema.decay 1
--ema.decay must be a number from 0 to below 1, got 1.0
train --net.dropout 2
--net.dropout must be a number from 0 to below 1, got 2.0
train --weak z
--weak must be one of 'auto', 'ms', 's', 'm', 'x', 'affine', 'ms:zero', 's:zero', got 'z'
train --precision fp16 --device cpu
--precision fp16 needs a GPU; on the CPU use fp32 or bf16
train --device tpu
the device must be auto, cpu, cuda or cuda:N, got 'tpu'
train --device cuda:9
device cuda:9 is not there: this machine has no usable CUDA GPU
train --sync-bn --device cpu --out new
--sync-bn needs GPUs; the device is cpu
train remixmatch --strong-views 0
--strong-views must be a whole number of at least 1, got 0
train mixmatch --batch 4 --uratio 7
MixMatch needs uratio 1, as many unlabeled images as labeled ones in a step, got 7 times as many
train --net wrn-30-2
net 'wrn-30-2': the depth must be 6n + 4 or 8n + 5 with n of at least 1, got 30; nearest is 29
train --net small --net.stages 4
net 'small' has no option stages (--net.stages is 4); it has width
train --net small --net.pretrained True
net 'small' has no pretrained weights; give a file, or a net of timm: or torchvision:
train --net small --net.pretrained no.pth
--net.pretrained: there is no file no.pth
train --net small --net.pretrained file.txt
--net.pretrained: file.txt is no file of weights (.safetensors, or .pth of tensors)
train --net cnn13
net 'cnn13' needs images of at least 12 x 12 pixels, got 8 x 8
train --net timm:resnet81
net 'timm:resnet81' is unknown: timm has no net 'resnet81'; did you mean ...
train --net timm:vit_tiny_patch16_224
net 'timm:vit_tiny_patch16_224' cuts images into patches of 16 x 16 pixels, which 8 x 8 ...
train --net small --optim.layer-decay 0.5
--optim.layer-decay 0.5 needs a net that can say its layers, such as timm:vit_tiny_patch16_224; this one cannot
""")

# data
wrong("""
train --data cifar11
unknown data set 'cifar11'; did you mean cifar10 or cifar100? (known: DATA; a folder is written with a path separator, such as photos/)
train --data ok
unknown data set 'ok' (known: DATA; for the folder of this name write ok/)
train --data digits@40@40
data name 'digits@40@40' is not of the form NAME.SEED@SIZE-VALID (for example cifar10.3@250-5000); a folder needs a path separator (photos/)
train --data digits@0
data name 'digits@0' asks for 0 labels; give at least 1, or no @SIZE for all of them
train --data digits.99999999999@40
data name 'digits.99999999999@40' has the seed 99999999999; allowed are 0 to 4294967295
train --data digits@40 --data.labels 50
the name digits@40 says labels 40, but --data.labels is 50
train --data digits.2@40 --data.seed 3
the name digits.2@40 says seed 2, but --data.seed is 3
train --data digits@40-100 --data.valid 5
the name digits@40-100 says valid 100, but --data.valid is 5
train --data digits --data.labels -3
--data.labels must be a whole number of at least 1 or None, got -3
train --data digits --data.image-size 2
--data.image-size must be a whole number from 4 to 4096 or None, got 2
train --data digits --data.normalize imagenet
--data.normalize imagenet needs images of 3 channels, digits has 1
train --data ok/ --data.normalize mean-std
--data.normalize mean-std: there are no published numbers for ok; use measured
train --data nothere/
there is no folder 'nothere'
train --data ./file.txt
'file.txt' is a file; own data are ...
train --data empty/
empty has no folder 'labeled' (or 'train'), and no class folders; own pictures lie in empty/CLASS/ or in empty/labeled/CLASS/ with at least 2 classes, and beside it in unlabeled/ and test/CLASS/ if there are such
train --data one/
one/labeled has one class only (cat); at least 2 are needed
train --data other/
other/test has classes that other/labeled has not: wolf
train --data broken/ --data.skip-corrupt
no picture of dog in broken/labeled can be read
""")

# run folders
wrong("""
train --out file.txt
cannot make the run folder file.txt: a file of that name exists
train --out run
run exists and is not empty; name another --out, or add --overwrite
train --out ok --overwrite
ok is not a run folder (it has no config.json), so --overwrite leaves it
train --out file.txt/run
cannot write the run folder file.txt/run: Not a directory
train --resume nothere
there is no run folder nothere
train --resume ok
ok is not a run folder: it has no config.json
train --resume bad-config
bad-config/config.json is not JSON
train --resume bad-split
bad-split/split.json is damaged: ...
train --resume no-checkpoint
no-checkpoint has no checkpoint yet, so it cannot be resumed
train --resume unfinished --steps 30
unfinished was started with steps 120 and cannot be resumed with 30; start a new run
train --resume unfinished --data digits@50
unfinished was started with data.name digits@40-100 and cannot be resumed with digits@50; start a new run
train mixmatch --resume unfinished
unfinished was started with algorithm.name fixmatch and cannot be resumed with mixmatch; start a new run
train --resume unfinished --recipe google-fixmatch-cifar10
--resume goes on in the run's own folder with its own settings: leave out --out, --overwrite, --recipe and --config
train --resume unfinished --out new
--resume goes on in the run's own folder with its own settings: leave out --out, --overwrite, --recipe and --config
evaluate nothere
there is no run folder nothere
evaluate run --checkpoint 7
run keeps no checkpoint '7' (kept: STEPS)
evaluate run --checkpoint newest
--checkpoint must be last, best or a step, got 'newest' (kept: STEPS)
evaluate run --weights both
--weights must be ema or raw, got 'both'
evaluate run --data ok/
ok has classes that the run does not know (cat, dog); the run knows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
evaluate bad-data
bad-data/data.json does not describe the data of a run
evaluate bad-weights
checkpoint bad-weights/checkpoints/step-00000120 is damaged: weights.safetensors has changed since it was written
""")

# --config
wrong(f"""
train --config nothere.json
--config nothere.json cannot be read: No such file or directory
train --config ok
--config ok cannot be read: Is a directory
train --config file.txt
--config file.txt is not a JSON file
train --config list.json
--config list.json must hold an object of settings
train --config inner.json
--config inner.json must hold an object of settings under 'train'
train --config tua.json
--config tua.json: algorithm has no setting 'tua'; did you mean tau?
train --config step.json
--config step.json: the configuration has no setting 'step'; did you mean steps?
train --config fixmach.json
--config fixmach.json: there is no algorithm 'fixmach'; did you mean fixmatch? {KNOWN}
train --config many.json
--config many.json: steps must be a whole number from 0 to 1000000000000, got 'many'
""")

# predict and split
wrong("""
predict run nothere.png
there is no file or folder nothere.png
predict run empty
there is no image in empty
predict nothere ok
there is no run folder nothere
predict run ok -o out.txt
predictions can be written as .csv, .json, .npy or .parquet, not as 'out.txt'
predict run ok -o taken.csv
taken.csv exists; name another file, or add --overwrite
predict run ok -o no/such/out.csv
there is no folder no/such to write out.csv to
predict run - ok -
- stands for standard input, and can be named once
predict run ok --top 0
--top must be from 1 to 10, the number of classes, got 0
predict run ok --top 11
--top must be from 1 to 10, the number of classes, got 11
predict run ok --top many
--top must be a whole number, got 'many'
predict run ok -o out.npy --top 2
--top is for .csv, .json and .parquet: .npy holds class numbers (or --probabilities)
predict run ok --threshold 80
--threshold must be a number from 0 to 1, got 80
predict run ok --threshold nan
--threshold must be a number from 0 to 1, got nan
predict run ok --shard 0/8 -o parts
--shard counts from 1: it must be 1/8 to 8/8, got '0/8'
predict run ok --shard 9/8 -o parts
--shard counts from 1: it must be 1/8 to 8/8, got '9/8'
predict run ok --shard 0/0 -o parts
--shard must be of at least 1 shard, got '0/0'
predict run ok --shard 3 -o parts
--shard must be I/N, such as 1/8, got '3'
predict run ok --shard -1/8 -o parts
--shard must be I/N, such as 1/8, got '-1/8'
predict run ok --shard 1/8
--shard writes a folder of parts: name it with -o DIR
predict run ok --shard 1/8 -o out.csv
--shard writes a folder of parts, and -o out.csv is called as a file is
predict run ok --shard 1/8 -o no/such/parts
there is no folder no/such to make parts in
predict run ok --shard 1/8 -o file.txt
file.txt is a file; --shard writes a folder of parts
predict run ok --shard 1/8 -o parts --npy a.npy
--npy does not go with --shard, whose parts are CSV files without an accuracy
predict run ok --shard 1/8 -o parts --label-from suffix
--label-from does not go with --shard, whose parts are CSV files without an accuracy
predict run ok --shard 1/8 -o parts --overwrite
--overwrite does not go with --shard, which goes on with the parts that are there
predict run ok --shard 1/8 -o parts --part-rows 0
--part-rows must be at least 1, got 0
predict run ok --shard 1/8 -o parts --top 11
--top must be from 1 to 10, the number of classes, got 11
predict run ok --part-rows 5
--part-rows is for --shard and --shards, which write parts
predict --check
--check needs a value
predict --check nothere
there is no folder nothere
predict --check ok
ok holds no parts of predictions, which predict --shard writes
predict run --check ok
predict has no argument 'run'
evaluate run --calibrate --recompute-bn 2
--calibrate measures the run as it is, and --recompute-bn another one: leave one of them out
split cifar11
unknown data set 'cifar11'; did you mean cifar10 or cifar100? (known: DATA; a folder is written with a path separator, such as photos/)
split digits@40 --labels 50
the name digits@40 says labels 40, but --labels is 50
split digits@40 --seed -4
--seed must be a whole number from 0 to 4294967295 or None, got -4
split digits@40 --out taken.csv
taken.csv exists; name another file
split digits@40 --out no/such.json
there is no folder no to write such.json to
""")


def pictures(folder: Path, colour: str) -> None:
    folder.mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (16, 16), colour).save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def place(digits_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wrong")
    for name in ("ok", "other", "bad", "broken", "one"):
        pictures(root / name / "labeled" / "cat", "red")
    for name in ("ok", "other", "bad"):
        pictures(root / name / "labeled" / "dog", "blue")
    pictures(root / "other" / "test" / "wolf", "grey")
    (root / "broken" / "labeled" / "dog").mkdir()
    for name in ("bad", "broken"):
        (root / name / "labeled" / "dog" / "x.png").write_bytes(b"nonsense")
    (root / "empty").mkdir()
    (root / "file.txt").write_text("hello")
    (root / "taken.csv").write_text("mine")
    for name, value in {
        "list": [1],
        "inner": {"train": 3},
        "tua": {"algorithm": {"name": "fixmatch", "tua": 0.9}},
        "step": {"step": 9},
        "fixmach": {"algorithm": "fixmach"},
        "many": {"steps": "many"},
    }.items():
        (root / f"{name}.json").write_text(json.dumps(value))
    shutil.copytree(digits_run.path, root / "run")
    for name in ("unfinished", "bad-config", "bad-split", "bad-data", "bad-weights", "no-checkpoint"):
        shutil.copytree(digits_run.path, root / name)
        (root / name / "result.json").unlink()
    (root / "bad-config" / "config.json").write_text('{"fewl')
    (root / "bad-split" / "split.json").write_text("{}")
    (root / "bad-data" / "data.json").write_text("{}")
    weights = root / "bad-weights" / "checkpoints" / "step-00000120" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    shutil.rmtree(root / "no-checkpoint" / "checkpoints")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def filled_in(sentence: str) -> str:
    """The sentence with what other modules list."""
    from fewlabels.cli import COMMANDS
    from fewlabels.data.source import FACTS

    return sentence.replace("COMMANDS", ", ".join(COMMANDS)).replace("DATA;", f"{', '.join(sorted(FACTS))};")


@pytest.mark.parametrize(("line", "sentence"), WRONG, ids=[line for line, _ in WRONG])
def test_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], line: str, sentence: str
) -> None:
    monkeypatch.chdir(place)
    before = contents(place)
    said = command(*line.split())
    assert said.code == 2 and said.out == "" and len(WRONG) > 90
    if sentence.endswith("..."):
        assert said.sentence.startswith(sentence.removesuffix("...")) and len(said.sentence) > len(sentence)
    else:
        steps = ", ".join(
            sorted({p.name.split("-")[1].lstrip("0") for p in Path("run/checkpoints").iterdir()}, key=int)
        )
        assert said.sentence == filled_in(sentence).replace("STEPS", steps)
    assert contents(place) == before, "something was written"


def test_corrupt_pictures_are_listed_before_the_training(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    monkeypatch.chdir(place)
    said = command("train", "--data", "bad/")
    assert said.code == 2 and "1 of 5 pictures cannot be read" in said.sentence and "labeled/dog/x.png" in said.sentence


@pytest.mark.slow
def test_more_labels_than_there_are(place: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]) -> None:
    monkeypatch.chdir(place)
    for line in ("train --data digits@4000", "split digits@4000"):
        said = command(*line.split())
        assert said.code == 2 and "4000" in said.sentence and "1437" in said.sentence


def test_data_set_that_is_not_there_and_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    import socket

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    said = command("train", "--data", "cifar10@40", "--data.root", tmp_path / "cifar", "--out", tmp_path / "run")
    assert said.code == 2 and f"cifar10 is not in {tmp_path}/cifar" in said.sentence
    assert not (tmp_path / "run").exists()


def test_folder_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    """Injected, as the superuser may write everywhere."""
    real = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if "forbidden" in str(self):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        real(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    small = ["--data", "digits@40", "--net", "small-4", "--batch", "4", "--steps", "2"]
    said = command("train", *small, "--out", tmp_path / "forbidden" / "run")
    assert said.code == 1  # it was not asked wrongly
    assert said.sentence == f"cannot write the run folder {tmp_path}/forbidden/run: Permission denied"


def test_gpu_out_of_memory(monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], tmp_path: Path) -> None:
    from fewlabels.training.step import Trainer

    def full(self: Any, step: int) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(Trainer, "step", full)
    said = command("train", "--data", "digits@40", "--net", "small-4", "--no-progress", "--out", tmp_path / "run")
    assert said.code == 1
    assert said.sentence == (
        "the GPU has not enough memory for this; --accumulate 2 divides what the images of a step need by 2; or try a "
        "smaller --batch, --uratio, net or --data.image-size"
    )


OF_TORCH = (
    "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


def too_large() -> None:
    np.empty(2**60, np.uint8)


def of_torch() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def said_otherwise() -> None:
    raise RuntimeError(OF_TORCH)


def by_python() -> None:
    raise MemoryError


@pytest.mark.slow
@pytest.mark.parametrize("full", [too_large, of_torch, said_otherwise, by_python])
def test_out_of_memory(
    full: Callable[[], None], monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], tmp_path: Path
) -> None:
    from fewlabels.training.step import Trainer

    monkeypatch.setattr(Trainer, "step", lambda self, step: full())
    said = command("train", "--data", "digits@40", "--net", "small-4", "--no-progress", "--out", tmp_path / "run")
    assert said.code == 1
    words = "the machine has not enough memory for this; try a smaller --batch, --uratio, net or --data.image-size"
    assert said.sentence == words


@pytest.mark.slow
def test_a_machine_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], tmp_path: Path
) -> None:
    from torch._inductor.exc import InvalidCxxCompiler

    from fewlabels.training.step import Trainer

    def fails(self: Trainer, step: int) -> None:
        raise InvalidCxxCompiler

    monkeypatch.setattr(Trainer, "step", fails)
    said = command("train", "--data", "digits@40", "--net", "small-4", "--compile", "--out", tmp_path / "run")
    assert said.code == 1 and said.sentence.startswith(
        "the net could not be compiled (No working C++ compiler found in"
    )
    assert said.sentence.endswith("; install a C and C++ compiler, or leave out --compile")


@pytest.mark.slow
def test_the_net_is_looked_at_before_the_pictures(
    photos: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Name, options, weights and their file: all that does not depend on the pictures."""
    from fewlabels.data import sources

    def read(*args: Any, **options: Any) -> None:
        raise AssertionError("the pictures are read")

    monkeypatch.setattr(sources, "load", read)
    (tmp_path / "other.pth").write_bytes(b"nonsense")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "names.pth")
    for words, sentence in (
        ("--net resnet101", "net 'resnet101' is unknown; did you mean 'torchvision:resnet101'?"),
        ("--net timm:resnet81", "net 'timm:resnet81' is unknown"),
        ("--net torchvision:resnet81", "net 'torchvision:resnet81' is unknown"),
        ("--net small --net.stages 4", "net 'small' has no option stages"),
        ("--net small --net.patch 4", "--net.patch is for nets of timm"),
        ("--net small --net.pretrained True", "net 'small' has no pretrained weights"),
        ("--net small --net.pretrained no.pth", "--net.pretrained: there is no file no.pth"),
        (f"--net timm:resnet18 --net.pretrained {tmp_path}/other.pth", "--net.pretrained: "),
        (f"--net timm:resnet18 --net.pretrained {tmp_path}/names.pth", "the weights in "),
    ):
        for how in ((), ("--dry-run",)):
            said = command("train", "--data", f"{photos}/", *words.split(), "--out", tmp_path / "run", *how)
            assert said.code == 2 and said.sentence.startswith(sentence), words
    assert not (tmp_path / "run").exists()


def test_ctrl_c_before_the_training(monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]) -> None:
    from fewlabels.commands import evaluate

    def impatient(args: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "main", impatient)
    said = command("evaluate", "run")
    assert said.code == 130 and said.sentence == "stopped; nothing was saved since the last checkpoint"


def test_ctrl_c_twice_while_torch_is_imported(tmp_path: Path) -> None:
    """A real process, as an interrupted import ends in C++; the module that is imported in torch's place sends both."""
    (tmp_path / "torch.py").write_text("import os, signal\nfor _ in range(2): os.kill(os.getpid(), signal.SIGINT)")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fewlabels.cli import main; main()"
    answer = program("train", cwd=tmp_path, code=code)
    assert answer.returncode == 130
    assert answer.stderr == "fewlabels: stopped; nothing was saved since the last checkpoint\n"


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]) -> None:
    from fewlabels.commands import evaluate

    def broken(args: list[str]) -> int:
        return [1][2]

    monkeypatch.setattr(evaluate, "main", broken)
    with pytest.raises(IndexError):
        command("evaluate", "run")


# ---- the program itself, in processes of its own


def program(*args: str, cwd: Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(fewlabels.__file__).parents[1])}
    start = ["-c", code] if code else ["-m", "fewlabels"]
    return subprocess.run(
        [sys.executable, *start, *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


HEAVY = ("torch", "torchvision", "sklearn", "scipy", "tensorboard", "numpy", "PIL", "tyro", "rich")
WITHOUT = f"""
import sys
try:
    sys.argv[0] = "fewlabels"
    import fewlabels
    if sys.argv[1:]:
        from fewlabels.cli import main
        main()
except SystemExit as stop:
    print("status", stop.code)
print("loaded", *[name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("args", "status", "start"),
    [
        ((), None, ""),
        (("--help",), 0, f"fewlabels {fewlabels.__version__}: "),
        ((), None, ""),
        (("--version",), 0, f"fewlabels {fewlabels.__version__}\n"),
        (("trian",), 2, ""),
    ],
)
def test_quick_answers_load_nothing_heavy(
    tmp_path: Path, args: tuple[str, ...], status: int | None, start: str
) -> None:
    answer = program(*args, cwd=tmp_path, code=WITHOUT)
    *said, loaded = answer.stdout.splitlines()
    assert loaded == "loaded" and answer.stdout.startswith(start or "loaded" * (status is None))
    if status is not None:
        assert said[-1] == f"status {status}"
        assert answer.stderr.startswith("fewlabels: there is no command 'trian'") == (status == 2)


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    answer = program("train", "--steps", "0", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "fewlabels: --steps must be at least 1 for fixmatch, which learns in steps alone, got 0\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_help_breaks_lines_by_the_width_alone(monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]) -> None:
    """And not where the docstrings of the source happen to."""
    monkeypatch.setenv("COLUMNS", "100")
    lines = [line.strip("│ ") for line in command("train", "uda", "--help").out.splitlines()]
    assert "Settings of a published project, or `fast` (`fewlabels list recipes`), weaker than --config" in lines
    assert "which grows from 1 / classes to 1, do not count" in " ".join(lines)
    assert not any(line.endswith("which grows") for line in lines)


@pytest.mark.slow
def test_help_of_a_command(command: Callable[..., Any]) -> None:
    """The options with a sentence for each, and the defaults of the recipe for what was named."""

    def shown(*args: str) -> str:
        said = command(*args, "--help")
        assert said.code == 0 and said.err == ""
        return " ".join(said.out.replace("│", " ").split())

    text = shown("train", "--data", "digits@40")
    assert text.startswith("usage: fewlabels train ") and "many unlabeled images." in text
    rate = "--optim.lr FLOAT Learning rate at the start (after the warm-up). A number above 0. (default: {})"
    assert rate.format(0.1) in text and rate.format(0.03) in shown("train", "--data", "cifar10")
    assert rate.format(0.002) in shown("train", "--recipe", "google-vat-svhn")
    text = shown("train", "mixmatch")
    assert "--beta FLOAT Parameter of MixUp's Beta distribution" in text and "--tau" not in text
    for name in ("evaluate", "predict", "split", "list"):
        assert command(name, "--help").out.startswith(f"usage: fewlabels {name} ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_help_of_an_algorithm(monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], name: str) -> None:
    """Each of its options with default and range, and the paper."""
    monkeypatch.setenv("COLUMNS", "100")  # one column
    cls, text = ALGORITHMS[name], " ".join(command("train", name, "--help").out.replace("│", " ").split())
    assert (cls.__doc__ or "").splitlines()[0] in text
    settings = recipe(name, "digits").algorithm
    own = [(f, "--" + f.name.replace("_", "-"), getattr(settings, f.name)) for f in dataclasses.fields(cls)]
    for part in [value for _, _, value in own if dataclasses.is_dataclass(value)]:
        word = next(option for _, option, value in own if value is part)
        own += [
            (f, word if f.name == "name" else f"{word}.{f.name.replace('_', '-')}", getattr(part, f.name))
            for f in dataclasses.fields(part)
        ]
    for f, option, default in own:
        if dataclasses.is_dataclass(default):
            continue
        start = re.search(rf" {option}(, --no-{option[2:]})? [{{A-Z\[(]", text)
        assert start is not None, option
        about = text[start.start() : text.index("(default: ", start.end()) + 40]
        assert f"(default: {default})" in about or default == (), about
        allowed = re.search(r"A (whole )?number (from|above|of at least) -?[\d.]+|A tuple", about)
        assert ("Range(" in str(f.type)) == bool(allowed), about


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("line", ["train", "predict", "report", "data check"])
def test_help_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], line: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = command(*line.split(), "--help").out.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith(f"usage: fewlabels {line} [-h]") and "{" not in lines[0]
    assert "mean and standard deviation over seeds. " in " ".join(" ".join(lines).split()) or line != "report"


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["30", "80", "300"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_frames_and_widths_of_terminals(monkeypatch: pytest.MonkeyPatch, encoding: str, columns: str) -> None:
    """The sentences come out of frames that look different on other terminals."""
    import contextlib
    import io

    from fewlabels import cli

    monkeypatch.setenv("COLUMNS", columns)
    sentences = dict(WRONG)
    for line in (
        "train --steps many",
        "train --steps",
        "train --tau 1.5",
        "train --optim.schedule step",
        "train --tau 0.9 mixmatch",
        "evaluate",
    ):
        err = io.StringIO()
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding)), contextlib.redirect_stderr(err):
            assert cli.run(line.split()) == 2
        assert err.getvalue() == f"fewlabels: {sentences[line]}\n"


def test_options_in_place_of_fields() -> None:
    from fewlabels.commands.options import last_ones, spelled
    from fewlabels.commands.train_options import Command

    assert spelled("Net.bn_momentum 2 and (Data.name is x), Train.sync_bn.", "train") == (
        "--net.bn-momentum 2 and (--data is x), --sync-bn."
    )
    assert spelled("Data.image_size is 2, Net.name", "split") == "--image-size is 2, Net.name"
    assert spelled("Optim.lr_end and VAT.eps", "") == "optim.lr_end and algorithm.eps"
    for same in ("a/Data.name", "Data.json", "'Train.steps'", "Train.steps.txt", "Nothing.steps", "Train.stepss"):
        assert spelled(same, "train") == same
    assert spelled("Train.steps", "evaluate") == "Train.steps"

    classes = [Command, *ALGORITHMS.values()]
    for line, rest in (
        ("--steps 3 --tau 0.9 --steps 4", "--tau 0.9 --steps 4"),
        ("--seed 1 fixmatch --seed=2", "fixmatch --seed=2"),
        ("--eval_every=5 fixmatch --eval-every 6", "fixmatch --eval-every 6"),
        ("--baseline --no-baseline mixmatch --baseline", "mixmatch --baseline"),
        ("--ema.warmup vat --ema.no-warmup", "vat --ema.no-warmup"),
        (
            "remixmatch --p-unlabeled 0.5 0.5 --steps 2 --p-unlabeled 0.1 0.9",
            "remixmatch --steps 2 --p-unlabeled 0.1 0.9",
        ),
        ("--data.keep-labeled 0,1 fixmatch --data.keep-labeled 2,3", "fixmatch --data.keep-labeled 2,3"),
        ("--stps 1 --stps 2", "--stps 1 --stps 2"),
    ):
        assert last_ones(line.split(), classes) == rest.split()


@pytest.mark.parametrize(
    "line", ["--steps 3 --tau 0.9 --steps 4", "--eval-every=3 fixmatch --tau 0.1 --eval-every 5 --tau 0.9 --steps 4"]
)
def test_the_last_of_two_counts(line: str) -> None:
    from fewlabels.commands.train_options import read

    found = read(line.split()).train
    assert (found.steps, found.algorithm.tau) == (4, 0.9)  # type: ignore[union-attr]
    assert found.eval_every == (5 if "eval" in line else recipe("fixmatch", "digits").eval_every)


NINES = "9" * 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--batch", NINES),
            f"--batch {NINES} with --uratio 7 means 799,999,999,999,999,999,992 images in each step; ",
        ),
        (("--uratio", "4294967296"), "--batch 64 with --uratio 4294967296 means 274,877,907,008 images in each step; "),
        (("--net", f"small-{NINES}"), f"net 'small-{NINES}': its numbers have at most four digits, got {NINES}"),
        (("--net", "wrn-999999994-2"), "net 'wrn-999999994-2': its numbers have at most four digits, got 999999994"),
        (("--net", "resnext-99999-4x4"), "net 'resnext-99999-4x4': its numbers have at most four digits, got 99999"),
        (("--net.width", NINES), "--net.width must be a whole number from 1 to 100000 or None, got "),
        (("--net.blocks", NINES), "--net.blocks must be a whole number from 1 to 1000 or None, got "),
        (("--data.oversample", NINES), "--data.oversample must be a whole number from 1 to 16777216 or None, got "),
        (("--steps", "9" * 400), "--steps must be a whole number from 0 to 1000000000000, got 9"),
    ],
)
def test_numbers_that_no_machine_serves(
    tmp_path: Path, command: Callable[..., Any], options: tuple[str, ...], words: str
) -> None:
    """Not a training that never takes its first step."""
    said = command("train", "--data", "digits@40", "--no-progress", "--out", tmp_path / "run", *options)
    assert said.code == 2 and said.sentence.startswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "option"),
    [
        (("train", "--config", ""), "--config"),
        (("train", "--config="), "--config"),
        (("train", "--out", "", "--steps", "3"), "--out"),
        (("train", "--data.classes", "", "--steps", "3"), "--data.classes"),
        (("train", "--resume", "run", "--data.root="), "--data.root"),
        (("split", "digits@40", "--out", ""), "--out"),
        (("predict", "run", ""), "an argument"),
        (("report", ""), "an argument"),
        (("evaluate", ""), "an argument"),
    ],
)
def test_an_empty_word(
    monkeypatch: pytest.MonkeyPatch, place: Path, command: Callable[..., Any], line: tuple[str, ...], option: str
) -> None:
    """As a variable of the shell that is not set leaves it: it is not the default, nor the current folder."""
    monkeypatch.chdir(place)
    before = contents(place)
    said = command(*line)
    assert (said.code, said.out) == (2, "") and contents(place) == before
    assert said.sentence == f"{option} is empty: give it a value, or leave it out"


@pytest.mark.parametrize(
    "line",
    [
        ("train", "--out", "~nobody-here/run", "--steps", "3"),
        ("train", "--data.root", "~nobody-here/run", "--steps", "3"),
        ("report", "~nobody-here/run"),
        ("predict", "run", "~nobody-here/run"),
        ("split", "digits@40", "--out", "~nobody-here/run"),
        ("data", "check", "~nobody-here/run"),
    ],
)
def test_the_home_of_nobody(
    monkeypatch: pytest.MonkeyPatch, place: Path, command: Callable[..., Any], line: tuple[str, ...]
) -> None:
    monkeypatch.chdir(place)
    said = command(*line)
    assert said.code == 2
    assert said.sentence == "~nobody-here/run: no home folder is known for that; write the whole path, or set HOME"
