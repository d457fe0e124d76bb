"""Run `python -m bench.costs` (minutes); `--most 5` stops at 10^5, `--waiting` measures a training loop instead."""

import argparse

from bench.costs.check import check, extrapolate, print_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=6, help="power of ten of the largest memory")
    parser.add_argument("--waiting", nargs="*", metavar="WAY", help="how much of a training step waits for replay")
    arguments = parser.parse_args()
    if arguments.waiting is not None:
        from bench.costs.waiting import print_waiting  # takes torch

        print_waiting(arguments.waiting)
        return
    rows, place = check(arguments.most)
    alone, one = 1e3 * (place.trip_s + place.request_s), 1e3 * place.request_s
    print(f"a request takes {alone:.2f} ms alone, {one:.2f} ms of many at once, without latency")
    print_rows(rows)
    for payload_bytes in (128, 1000):
        extrapolate(place, payload_bytes=payload_bytes)


if __name__ == "__main__":
    main()
