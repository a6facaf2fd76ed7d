"""`bench e2e --images 5000 1000000`: what a step costs when the data set grows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench import subjects
from bench.e2e import EndToEnd
from bench.measure import Work, alternate, worst
from bench.options import Stages
from bench.record import Result, result
from bench.step import Batches, Ours
from fewlabels.training.recorder import peak_memory


def run(options: EndToEnd, stages: Stages) -> Result:
    """Steps and batches of trainings that differ in the number of images only; the first size is the reference."""
    device = options.prepare()
    steps = options.steps or (50 if device.type == "cuda" else 2)
    sizes = sorted(set(options.images))
    if len(sizes) < 2:
        raise ValueError(f"--images needs two sizes at least, such as 5000 1000000, got {list(options.images)}")
    settings: dict[str, Any] = {"batch": options.batch, "uratio": options.uratio, "device": options.device}
    whole: dict[str, Work] = {}
    data: dict[str, Work] = {}
    memory = {}
    with stages("making the data sets") as tick:
        for i, size in enumerate(sizes):
            images = subjects.source(size, options.side)
            peak = peak_memory()
            trainer = subjects.trainer(
                subjects.config(options.net, compile=options.compile, **settings), images, device
            )
            memory[str(size)] = {
                "uint8": images.images.nbytes,
                "resident": trainer.batches.store.nbytes,
                "over_uint8": trainer.batches.store.nbytes / images.images.nbytes,
                "growth_of_peak": peak_memory() - peak,
            }
            whole[f"{size} images"] = Ours(trainer)
            data[f"{size} images"] = Batches(trainer)
            tick(i + 1, len(sizes))
    with stages("timing the data") as tick:
        apart = alternate(data, rounds=options.rounds, device=device, repeats=steps, tick=tick)
    with stages("timing whole steps") as tick:
        timings = alternate(whole, rounds=options.rounds, device=device, repeats=steps, tick=tick)
    largest = f"{sizes[-1]} images"
    return result(
        "scale",
        device,
        {**asdict(options), "images": sizes, "steps": steps},
        worst(timings.control, apart.control),
        ratio=timings.ratio(largest).median,
        data_ratio=apart.ratio(largest).median,
        memory=memory,
        whole=timings.as_json(),
        data=apart.as_json(),
    )
