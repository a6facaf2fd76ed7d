"""Where the runs of a sweep are trained, as it is asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, Literal

from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.fields import Main
from fewlabels.runtime.words import nearest, seconds_of

OWN = {
    "slurm": frozenset(("gpus", "cpus", "memory", "time", "partition", "account", "options")),
    "ray": frozenset(("gpus", "cpus", "memory", "options")),
    "local": frozenset[str](),
}
"""The options of each engine."""


@dataclass(frozen=True)
class On(Checked):
    """Where the runs of --seeds, --folds and --grid are trained, and the --shards of `predict` classified."""

    name: Annotated[Literal["local", "slurm", "ray"], Main] = "local"
    """`local`: on this machine, one after another or one on each visible GPU; `slurm`: each a job of Slurm; `ray`: each
    a task of the Ray cluster in RAY_ADDRESS, or of one that is started on this machine."""
    _: KW_ONLY
    gpus: Annotated[float | None, Range(0, 64)] = None
    """GPUs of a run (Ray takes parts of one); default 1, with --device cpu none."""
    cpus: Annotated[int | None, Range(1, 1024)] = None
    """CPU cores of a run, which are its threads unless OMP_NUM_THREADS says otherwise; default 4, with
    Ray no more than its largest node has."""
    memory: Annotated[float | None, Range(0, None, low_open=True)] = None
    """GB of memory of a run; default: what the cluster gives."""
    time: str | None = None
    """Of a job of Slurm, such as 90m or 24h; one that is not finished by then saves and is put into the queue again;
    default 24h."""
    partition: str | None = None
    """Partition of Slurm; default: the cluster's."""
    account: str | None = None
    """Account of Slurm; default: the user's."""
    options: tuple[str, ...] = ()
    """What else sbatch takes, as KEY=VALUE (`qos=high`, `constraint=a100`), or resources of Ray, as NAME=AMOUNT."""

    def check(self) -> None:
        """Raises ValueError for options that the engine does not have, or that mean nothing."""
        for field in fields(self)[1:]:
            if getattr(self, field.name) != field.default and field.name not in OWN[self.name]:
                having = [name for name, own in OWN.items() if field.name in own]
                raise ValueError(
                    f"On.{field.name} is for On.name {' or '.join(having)}, and the runs are trained on {self.name}"
                )
        if self.time is not None:
            try:
                seconds_of(self.time)
            except ValueError as error:
                raise ValueError(f"On.time {error}") from None
        if self.name == "slurm" and self.gpus is not None and not self.gpus.is_integer():
            raise ValueError(f"On.gpus must be a whole number on slurm, got {self.gpus}")
        self.pairs()

    def pairs(self, known: Collection[str] | None = None) -> dict[str, str]:
        """`options` by key. Raises ValueError for one that is no KEY=VALUE, twice there, or none of the `known`."""
        found: dict[str, str] = {}
        for text in self.options:
            key, equals, value = text.partition("=")
            key = key.removeprefix("--")
            if not (key and equals and value):
                raise ValueError(f"On.options must be KEY=VALUE, got {text!r}")
            if key in found:
                raise ValueError(f"On.options has {key} twice")
            if known is not None and key.replace("-", "_") not in known:
                raise ValueError(f"On.options has {key}, which submitit does not know{nearest(key, known)}")
            found[key] = value
        return found
