"""The runs of a sweep as jobs of Slurm, through submitit (https://github.com/facebookincubator/submitit).

Before the end of its time, or where the cluster is set up to tell it before a preemption, a job gets SIGUSR2: submitit
then asks the `Checkpointable`, which has the run saved, and puts the job into the queue again.
"""

from __future__ import annotations

import logging
import math
import subprocess
import time
from pathlib import Path
from typing import Any

from fewlabels.runtime.words import seconds_of
from fewlabels.sweep.on import On
from fewlabels.sweep.task import Checkpointable, Task

CLUSTER = "slurm"
"""What submitit calls it. Its `local` starts processes here, for the tests."""

OWN = frozenset(
    (
        *(
            "time",
            "partition",
            "account",
            "mem",
            "cpus_per_task",
            "gpus_per_node",
            "num_gpus",
            "nodes",
            "ntasks_per_node",
        ),
        *("job_name", "setup", "teardown", "array_parallelism", "additional_parameters", "srun_args", "use_srun"),
        "stderr_to_stdout",
    )
)
"""What submitit takes and the user does not give it: it has options of its own, or is no word."""


class Slurm:
    """An engine. Its files, with what Slurm says of a job, lie in `.slurm` below `root` until the job is finished."""

    words = "on Slurm"

    def __init__(self, on: On, root: Path, *, gpus: int) -> None:
        """gpus: of a run, if `on` does not say it. Raises ValueError where there is no submitit or no Slurm."""
        try:
            import submitit
        except ImportError:
            raise ValueError(
                "--on slurm needs the package 'submitit': install fewlabels[slurm] (pip install 'fewlabels[slurm]')"
            ) from None
        logging.getLogger("submitit").setLevel(logging.ERROR)
        known = set(submitit.SlurmExecutor._valid_parameters()) - OWN
        more = {f"slurm_{k.replace('-', '_')}": True if v == "true" else v for k, v in on.pairs(known).items()}
        self.cpus, self.folder = on.cpus or 4, root.absolute() / ".slurm"
        try:
            self.executor = submitit.AutoExecutor(self.folder, cluster=CLUSTER, slurm_max_num_timeout=10**6)
        except RuntimeError:
            raise ValueError("--on slurm starts jobs with sbatch and srun, which this machine does not have") from None
        self.executor.update_parameters(
            timeout_min=math.ceil(seconds_of(on.time or "24h") / 60),
            cpus_per_task=self.cpus,
            gpus_per_node=int(gpus if on.gpus is None else on.gpus) or None,
            mem_gb=on.memory,
            stderr_to_stdout=True,
            slurm_partition=on.partition,
            slurm_account=on.account,
            **more,
        )
        self.asked: dict[str, float] = {}

    def submit(self, task: Task, name: str) -> Any:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            self.executor.update_parameters(name=f"fewlabels {name}".replace(" ", "-"))
            return self.executor.submit(Checkpointable(task.file, task.token))
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError, OSError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ValueError(f"Slurm does not take the job: {lines[-1] if lines else type(error).__name__}") from None

    def look(self, handle: Any) -> int | str | None:
        if not handle.done():
            return None
        if not handle.paths.result_pickle.exists():
            return f"Slurm ended its job {handle.job_id} ({handle.state}); what that said is in {handle.paths.stdout}"
        outcome, value = handle._get_outcome_and_result()
        if outcome != "success":
            return f"its job {handle.job_id} failed; what that said is in {handle.paths.stdout}"
        for file in self.folder.glob(f"{handle.job_id}_*"):
            file.unlink(missing_ok=True)
        return int(value)

    def cancelled(self, handle: Any) -> bool | None:
        """As `sacct` says it, which is asked every ten seconds; the job may be on its way into the queue again."""
        now = time.monotonic()
        if CLUSTER == "slurm" and now < self.asked.get(handle.job_id, -math.inf) + 10:
            return None
        self.asked[handle.job_id] = now
        info = handle.get_info(mode="force")
        state = str(info.get("State") or info.get("jobState") or "").upper()
        if state.startswith(("RUNNING", "COMPLETING", "PENDING", "REQUEUED")):
            return None
        return state.startswith("CANCELLED")

    def cancel(self, handle: Any) -> None:
        handle.cancel(check=False)

    def close(self) -> None:
        if self.folder.is_dir() and not any(self.folder.glob("*_log.*")):
            for file in self.folder.iterdir():
                file.unlink(missing_ok=True)
            self.folder.rmdir()
