"""Jobs on a Ray cluster, whose nodes see the same folders."""

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from exmem.errors import DataError
from exmem.report.tradeoff.executors import MOST_TRIES, Finished, died
from exmem.report.tradeoff.work import Job, Outcome, Setup, prepare, run_job

__all__ = ["OnRay"]

_PATIENCE_S = 1.0


class OnRay:
    """Tasks of Ray, one a job: Ray says where each runs, and begins one again whose worker or node died.

    Joins the cluster that RAY_ADDRESS names, or the one that is there already, else makes one of this machine.
    """

    def __init__(self, setup: Setup, *, cpus: int = 1, gpus: float = 0.0) -> None:
        self._setup, self._cpus, self._gpus = setup, cpus, gpus
        self._ray = ray = _imported()
        if not ray.is_initialized():
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, configure_logging=False)

    @property
    def workers(self) -> int:
        """How many jobs run at once on the cluster as it is now."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._cpus)

    def run(self, jobs: Sequence[Job], tell: Callable[[str, str], None]) -> Iterator[Finished]:
        """Yield jobs with what became of their cells."""
        ray, options = self._ray, {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": MOST_TRIES - 1}
        kinds = {
            "probe": ray.remote(**options)(_work),
            "trainer": ray.remote(**options, max_calls=1)(_work),  # a process of its own: its peak of RAM is measured
        }
        running = {kinds[job.kind].remote(job, self._setup): job for job in jobs}
        try:
            while running:
                ready, _ = ray.wait(list(running), timeout=_PATIENCE_S)
                for task in ready:
                    job = running.pop(task)
                    try:
                        outcomes: list[Outcome] = ray.get(task)
                    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                        outcomes = died(job, type(error).__name__)
                    except ray.exceptions.OutOfMemoryError:
                        outcomes = died(job, "Ray ended it, as the node was out of memory")
                    tell(job.title, "ends")
                    yield job, outcomes
        finally:
            for task in running:
                ray.cancel(task, force=True)


def _imported() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise DataError("--executor ray needs the package ray; pip install 'exmem[ray]'") from error


_prepared: list[Setup] = []  # of this process


def _work(job: Job, setup: Setup) -> list[Outcome]:
    if setup not in _prepared:
        prepare(setup)
        _prepared.append(setup)
    return run_job(job, setup, lambda _: None)
