"""Share of a slow link that one worker uses: `python -m bench.links [--seconds 10]`.

A TCP proxy between the worker and its Redis lets so many bits through each second, and takes so long for a round trip.
`share` is the time that the bytes of messages and results would take alone, over the time it took. `bytes` is what
crossed the link over these. Small messages cost more than themselves: each request takes five script calls.
"""

import argparse

from support.link_runs import run

SIZES = (3_000, 260_000, 5 * 1024 * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description="Throughput of one worker on slow and far links.")
    parser.add_argument("--seconds", type=float, default=10, help="of each link's time (default: %(default)s)")
    parser.add_argument("--most", type=int, default=1000, help="requests in each run (default: %(default)s)")
    options = parser.parse_args()
    print("| Mbit/s | round trip, ms | message, bytes | requests/s | share | bytes | Redis lost |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        for mbit_per_s in (8, 24, 100):
            for round_trip_ms in (1, 5, 50):
                count = min(options.most, max(2, round(options.seconds * mbit_per_s * 1e6 / 8 / size)))
                found = run(count, size, mbit_per_s=mbit_per_s, round_trip_ms=round_trip_ms)
                print(
                    f"| {mbit_per_s} | {round_trip_ms} | {found.message_bytes} | {found.requests / found.seconds:.1f} "
                    f"| {found.share:.0%} | {found.ratio:.2f} | {len(found.lost)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
