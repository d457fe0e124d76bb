"""Where jobs run: worker processes of this machine."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from exmem.report.tradeoff.work import Job, Outcome, Setup, prepare, run_job

__all__ = ["MOST_TRIES", "Executor", "Finished", "Processes", "died"]

MOST_TRIES = 2
"""How often a job is begun whose worker dies."""

Finished = tuple[Job, list[Outcome]]
_PATIENCE_S = 0.5
_KILLED = f"exit code {-signal.SIGKILL}"
_spawn = multiprocessing.get_context("spawn")


class Executor(Protocol):
    """Runs jobs; each outcome comes as soon as it is known, in any order."""

    def run(self, jobs: Sequence[Job], tell: Callable[[str, str], None]) -> Iterator[Finished]:
        """Yield jobs with what became of their cells; `tell` is told the title of a job and what it does."""


def died(job: Job, how: str) -> list[Outcome]:
    """Return that the worker of a job died each time."""
    memory = how == _KILLED or "memory" in how
    hint = "it may have been out of memory: use fewer --jobs" if memory else "what it runs may end the process"
    reason = f"the worker died {MOST_TRIES} times ({how}); {hint}"
    return [Outcome(cell.key, "failed", reason) for cell in job.cells]


@dataclasses.dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    last: Job | None = None


class Processes:
    """Worker processes that are begun afresh, without what this process has loaded.

    A worker keeps the backbone and the data of its last probe, so it is given jobs of the same group first; a run of
    the trainer has a process of its own. One that dies is replaced, and its job is begun once more.
    """

    def __init__(self, setup: Setup, number: int) -> None:
        self._setup, self._number = setup, number
        self._workers: list[_Worker] = []

    def run(self, jobs: Sequence[Job], tell: Callable[[str, str], None]) -> Iterator[Finished]:
        """Yield jobs with what became of their cells."""
        waiting, tries = list(jobs), dict[str, int]()
        try:
            while waiting or any(worker.job for worker in self._workers):
                self._give(waiting, tries, tell)
                for worker in self._heard():
                    yield from self._news(worker, waiting, tries, tell)
        finally:
            for worker in self._workers:
                _stop(worker)
            self._workers.clear()

    def _give(self, waiting: list[Job], tries: dict[str, int], tell: Callable[[str, str], None]) -> None:
        """Give a job to each worker that has none."""
        for worker in [worker for worker in self._workers if worker.job is None]:
            job = self._next(waiting, worker.last)
            if job is None or not _fits(worker.last, job):
                _stop(worker)
                self._workers.remove(worker)
            else:
                self._begin(worker, job, waiting, tries, tell)
        while waiting and len(self._workers) < self._number:
            job = self._next(waiting, None)
            assert job is not None
            worker = _started(self._setup)
            self._workers.append(worker)
            self._begin(worker, job, waiting, tries, tell)

    def _next(self, waiting: Sequence[Job], last: Job | None) -> Job | None:
        """Return a job of the worker's group, else one of a group that no other worker is at, else any."""
        taken = {worker.job.group for worker in self._workers if worker.job is not None}
        same = (job for job in waiting if last is not None and job.group == last.group)
        new = (job for job in waiting if job.group not in taken)
        return next(same, None) or next(new, None) or next(iter(waiting), None)

    def _begin(
        self, worker: _Worker, job: Job, waiting: list[Job], tries: dict[str, int], tell: Callable[[str, str], None]
    ) -> None:
        waiting.remove(job)
        tries[job.name] = tries.get(job.name, 0) + 1
        worker.job = worker.last = job
        tell(job.title, "begins")
        with contextlib.suppress(OSError):  # it has died, which is heard next
            worker.pipe.send(job)

    def _heard(self) -> list[_Worker]:
        busy = [worker for worker in self._workers if worker.job is not None]
        ready = set(wait([one for worker in busy for one in (worker.pipe, worker.process.sentinel)], _PATIENCE_S))
        return [worker for worker in busy if {worker.pipe, worker.process.sentinel} & ready]

    def _news(
        self, worker: _Worker, waiting: list[Job], tries: dict[str, int], tell: Callable[[str, str], None]
    ) -> Iterator[Finished]:
        job = worker.job
        assert job is not None
        try:
            news: str | list[Outcome] = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            if tries[job.name] < MOST_TRIES:
                tell(job.title, "its worker died; begun once more")
                waiting.insert(0, job)
            else:
                yield job, died(job, f"exit code {worker.process.exitcode}")
            return
        if isinstance(news, str):
            tell(job.title, news)
        else:
            worker.job = None
            yield job, news


def _fits(last: Job | None, job: Job) -> bool:
    """Say whether a worker that did one job may do another: its peak of RAM is then that of the job."""
    return last is None or (last.kind == job.kind == "probe")


def _started(setup: Setup) -> _Worker:
    mine, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_serve, args=(theirs, setup), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, mine)


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    if worker.job is not None:
        worker.process.terminate()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _serve(pipe: Connection, setup: Setup) -> None:
    """Do jobs until the pipe ends; an interrupt is for the process that gives them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        ready = False
        while True:
            job: Job = pipe.recv()
            if not ready:
                prepare(setup)
                ready = True
            pipe.send(run_job(job, setup, pipe.send))
    sys.stdout.flush()


def _end_with_parent() -> None:
    """Die with the process that gives jobs, which may have been killed: nobody would hear of what this one does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
