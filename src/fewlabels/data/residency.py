"""Where the images of a training live: on the device, in the host's memory, or in their files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from fewlabels.runtime.words import amount

if TYPE_CHECKING:  # the processes that decode pictures do without torch
    import torch

Kind: TypeAlias = Literal["device", "host", "stream"]

SHARE = 2
"""What is resident takes a half of the free memory at most; the rest is for the net and its activations."""


class Place(NamedTuple):
    """A choice and its reason."""

    kind: Kind
    device: str
    needed: int
    """Bytes that the images take, or would take, on the device (on the host, for `stream`)."""
    free: int
    """Bytes that are free there."""
    asked: bool
    """Whether the user said so."""

    def __str__(self) -> str:
        free = f"{amount(self.needed)} of {amount(self.free)} free {'memory' if self.device == 'cpu' else 'there'}"
        where = "in memory" if self.device == "cpu" else f"on {self.device}"
        why = f"they would take {free.replace(' there', f' on {self.device}')}"
        said = {
            "device": f"images {where}, {free}",
            "host": f"images in host memory, gathered for each step; {why}",
            "stream": f"images stay in their files, decoded for each step; {why}",
        }[self.kind]
        return f"{said} (as asked)" if self.asked else said


def choose(
    wanted: Literal["auto"] | Kind,
    count: int,
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    files: bool = False,
) -> Place:
    """Where `count` images of `shape` (C, H, W) should live for a training on `device`.

    files: whether they are files that can be decoded for each step. Such images stay there if their bytes do not
    fit in half of the host's free memory, because they would have to be decoded to it first.
    """
    channels, height, width = shape
    plain, packed = (count * height * width * c for c in (channels, 4 if channels == 3 else channels))
    if wanted == "stream" or (wanted == "auto" and files and not fits(plain)):
        return Place("stream", "cpu", plain, host_memory(), wanted != "auto")
    free = free_memory(device)
    kind: Kind = wanted if wanted != "auto" else "device" if SHARE * packed <= free else "host"
    return Place(kind, str(device), packed, free, wanted != "auto")


def fits(plain: int) -> bool:
    """Whether so many bytes are at most half of the host's free memory."""
    return SHARE * plain <= host_memory()


def free_memory(device: torch.device) -> int:
    """Free bytes of the GPU that `device` is, or of the machine."""
    if device.type != "cuda":
        return host_memory()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def host_memory() -> int:
    """Free bytes of the machine, or of the control group where that has a lower limit."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError, StopIteration):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" is no limit
        used = int((group / "memory.current").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cache = int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])
        free.append(max(0, limit - used + cache))
    if not free:  # not Linux: what is installed, as nothing tells what is free
        with suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(free, default=4 << 30)
