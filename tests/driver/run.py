"""Run many sequences: `python -m tests.driver.run --sequences 10000 --seed 0`."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator

from tests.driver.life import MOST_STEPS, Tally, run_sequence
from tests.driver.schemas import CASES, known


def _one(arguments: tuple[int, int, str | None]) -> Tally:
    seed, steps, case = arguments
    return run_sequence(seed, steps=steps, case_name=case)


def run_many(seeds: range, *, steps: int = MOST_STEPS, case: str | None = None, processes: int = 2) -> Iterator[Tally]:
    """Run the sequences of seeds, and give the tally of each as it ends."""
    for made in CASES:  # before the processes fork, so that each pool is made once
        known(made.name)
    work = [(seed, steps, case) for seed in seeds]
    if processes == 1:
        yield from map(_one, work)
        return
    # Forked and not daemons: each sequence forks processes of its own.
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_one, work, chunksize=1)


def main() -> int:
    """Run sequences from the command line; the exit status says whether one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; the others follow")
    parser.add_argument("--steps", type=int, default=MOST_STEPS, help="most operations of a sequence")
    parser.add_argument("--case", default=None, choices=[case.name for case in CASES])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--most-failures", type=int, default=20, help="stop after so many")
    given = parser.parse_args()
    total, start, told = Tally(), time.monotonic(), 0.0
    seeds = range(given.seed, given.seed + given.sequences)
    for tally in run_many(seeds, steps=given.steps, case=given.case, processes=given.processes):
        total.add(tally)
        for text in tally.failures.values():
            sys.stdout.write(f"\n{text}\n")
        if time.monotonic() - told > 10:
            told = time.monotonic()
            sys.stdout.write(f"{summary(total)} in {told - start:.0f} s\n")
            sys.stdout.flush()
        if len(total.failures) >= given.most_failures:
            break
    sys.stdout.write(f"{summary(total)} in {time.monotonic() - start:.0f} s\n")
    sys.stdout.write("".join(f"repeat with --seed {seed} --sequences 1\n" for seed in sorted(total.failures)))
    return 1 if total.failures else 0


def summary(total: Tally) -> str:
    """Say in a line what happened."""
    return (
        f"{total.sequences:,} sequences, {total.operations:,} operations, {total.evicting:,} evicting for room, "
        f"{total.deaths:,} kills, {total.faults:,} faults, {total.refusals:,} refusals, {len(total.failures)} failures"
    )


if __name__ == "__main__":
    sys.exit(main())
