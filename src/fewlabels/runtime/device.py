"""Where a program computes, and with which precision."""

from __future__ import annotations

import torch

from fewlabels.runtime import ranks
from fewlabels.runtime.words import did_you_mean


def pick_device(name: str) -> torch.device:
    """The device of this rank. Raises ValueError for one that is not there, or not for this rank alone."""
    meant = did_you_mean([f"cuda:{name}"] if name.isdecimal() else [])
    allowed = f"the device must be auto, cpu, cuda or cuda:N, got {name!r}{meant}"
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise ValueError(allowed) from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(allowed)
    if device.type == "cuda":
        count, here = torch.cuda.device_count(), ranks.local_world()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            have = f"has the CUDA GPUs 0 to {count - 1}" if count else "has no usable CUDA GPU"
            raise ValueError(f"device {name} is not there: this machine {have}")
        if device.index is not None and here > 1:
            raise ValueError(f"device {name} would be that of all {here} ranks of this machine: give --device cuda")
        if device.index is None and ranks.local_rank() >= count:
            raise ValueError(
                f"this machine has {here} ranks and {count} CUDA GPU{'s' * (count > 1)}, and each rank needs its own: "
                f"start {count} (torchrun --nproc-per-node {count}), or give --device cpu"
            )
        device = torch.device("cuda", ranks.local_rank() if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype | None:
    """dtype of autocast, None for float32."""
    if name == "auto":
        if device.type != "cuda":
            return None
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        # Volta and Turing have matrix units for float16 only
        return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else None
    if name in ("tf32", "fp16") and device.type == "cpu":
        raise ValueError(f"Train.precision {name} needs a GPU; on the CPU use fp32 or bf16")
    return {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
