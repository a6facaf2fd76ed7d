"""What torch keeps for the whole process, as a training wants it: generators, determinism, cuDNN, TF32."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from fewlabels.training.step import Trainer


def own_generator(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Seeds what is inside as it likes, and leaves the caller's global generators as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def autotunes(trainer: Trainer) -> bool:
    """Whether cuDNN tries its kernels on the first steps and keeps the fastest ones."""
    return trainer.device.type == "cuda" and not trainer.config.deterministic


@contextlib.contextmanager
def switched(trainer: Trainer) -> Iterator[None]:
    """The process-wide switches of torch, put back at the end: global generator, determinism, cuDNN, TF32."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    old = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cuda.allow_tf32, cudnn.allow_tf32
    with own_generator(trainer.device):
        if trainer.config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        cudnn.benchmark = autotunes(trainer)
        cuda.allow_tf32 = cudnn.allow_tf32 = trainer.config.precision == "tf32"
        try:
            yield
        finally:
            if trainer.config.deterministic:  # else nothing was changed, and the call imports the compiler
                torch.use_deterministic_algorithms(old[0])
            _, cudnn.benchmark, cuda.allow_tf32, cudnn.allow_tf32 = old
