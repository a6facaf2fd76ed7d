"""What can go wrong in a training, in one sentence."""

from __future__ import annotations

import re

from fewlabels.runs.run import NotWritten
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.runtime.ranks import Lost

SMALLER = "try a smaller --batch, --uratio, net or --data.image-size"
"""What helps wherever memory does not suffice."""


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message names the step, the terms and the last good state."""


def foreseen(error: Exception) -> str | None:
    """The sentence for an error that can be foreseen, or None."""
    if isinstance(error, Interrupted | Diverged | Lost | NotWritten | ValueError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if type(error).__name__ == "OutOfMemoryError":
        # a training knows what would help (`fewlabels.training.relief`)
        ways = "; ".join(getattr(error, "__notes__", ())) or SMALLER
        return f"the GPU has not enough memory for this; {ways}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        return f"the machine has not enough memory for this; {SMALLER}"
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        reason = str(error).split("\n")[0]
        return f"the net could not be compiled ({reason}); install a C and C++ compiler, or leave out --compile"
    return None


_NO_MEMORY = re.compile(
    "DefaultCPUAllocator|[Cc]an(no|')t allocate memory|Storage size calculation overflowed|multiplication overflow"
)
"""In torch's words, where the machine's memory does not suffice, or no machine's would."""
