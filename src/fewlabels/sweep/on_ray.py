"""The runs of a sweep as tasks of Ray (https://docs.ray.io)."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

from fewlabels.sweep.on import On
from fewlabels.sweep.task import Task, call


class Ray:
    """An engine: the cluster in RAY_ADDRESS, or one of all cores and GPUs of this machine for as long as the sweep."""

    words = "on Ray"

    def __init__(self, on: On, *, gpus: int) -> None:
        """gpus: of a run, if `on` does not say it and the cluster has some. Raises ValueError where there is no Ray."""
        try:
            import ray
        except ImportError:
            raise ValueError(
                "--on ray needs the package 'ray': install fewlabels[ray] (pip install 'fewlabels[ray]')"
            ) from None
        self.ray: Any = ray
        resources = {}
        for key, value in on.pairs().items():
            try:
                resources[key] = float(value)
            except ValueError:
                raise ValueError(f"On.options must be NAME=AMOUNT on ray, got {key}={value!r}") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)
        try:
            self.ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, RuntimeError) as error:
            raise ValueError(f"--on ray finds no cluster: {str(error).splitlines()[0]}") from None
        finally:
            signal.signal(signal.SIGTERM, before)
        if on.gpus is None and not self.ray.cluster_resources().get("GPU"):
            gpus = 0
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        largest = int(max((node.get("CPU", 0) for node in nodes), default=0))
        self.cpus, self.gpus = on.cpus or min(4, largest or 4), gpus if on.gpus is None else on.gpus
        need = {"CPU": self.cpus, "GPU": self.gpus, **resources}
        if not any(all(node.get(k, 0) >= n for k, n in need.items() if n) for node in nodes):
            words = ", ".join(f"{n:g} {k}" for k, n in need.items() if n)
            print(f"note: no node of the Ray cluster has {words} by now: the runs wait for one", file=sys.stderr)
        memory = None if on.memory is None else int(on.memory * 10**9)
        self.options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": memory, "resources": resources}
        self.call = self.ray.remote(call)

    def submit(self, task: Task, name: str) -> Any:
        options = {**self.options, "max_retries": 10}  # one whose node was lost begins anew, and goes on with the run
        return self.call.options(**options, name=f"fewlabels {name}").remote(task)

    def look(self, handle: Any) -> int | str | None:
        ready, _ = self.ray.wait([handle], timeout=0)
        if not ready:
            return None
        try:
            return int(self.ray.get(handle))
        except self.ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return f"Ray ended its task ({type(error).__name__}): {lines[-1] if lines else ''}"

    def cancelled(self, handle: Any) -> bool:
        return False

    def cancel(self, handle: Any) -> None:
        self.ray.cancel(handle, force=True)

    def close(self) -> None:
        self.ray.shutdown()
