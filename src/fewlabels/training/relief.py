"""What helps a training that the GPU has not the memory for, by its settings."""

from __future__ import annotations

from fewlabels import nets
from fewlabels.config.settings import Train
from fewlabels.training.failures import SMALLER


def relief(config: Train, shape: tuple[int, int, int], world: int) -> str:
    """The options that make a step smaller, and by how much; those that are used already are not among them.

    Args:
        shape: (C, H, W) of the images.
        world: number of ranks.
    """
    ways = []
    if (turns := more_turns(config, world)) is not None:
        ways.append(f"--accumulate {turns} divides what the images of a step need by {turns / config.accumulate:g}")
    if (share := _share(config, shape)) is not None:
        ways.append(
            f"--net.recompute keeps about {max(1, round(100 * share))} % of what the net keeps of them, in a step that "
            "takes about a third longer"
        )
    return "; ".join((*ways, f"or {SMALLER}"))


def more_turns(config: Train, world: int) -> int | None:
    """The next number of turns that a rank's share of a step can be taken in; None where there is none."""
    if config.graph:  # which is recorded in one turn
        return None
    labeled, unlabeled = config.batch // world, config.batch * config.uratio // world
    rest = range(config.accumulate + 1, labeled + 1)
    return next((n for n in rest if labeled % n == 0 and unlabeled % n == 0), None)


def _share(config: Train, shape: tuple[int, int, int]) -> float | None:
    """What `--net.recompute` leaves; None where it is on, or does not go with the net or another option."""
    net = config.net
    other = config.compile or config.graph or net.train == "head"
    if net.recompute or other or not net.name.startswith("timm:"):
        return None
    return nets.share_kept(net.name, shape, net.patch)
