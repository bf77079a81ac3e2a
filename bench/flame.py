"""Flame graphs of the time that one request takes: CPU of a worker, and of the main thread of Valkey.

`python -m bench.flame [--tree PATH] [--in-flight 100] --out FOLDER`. With `--tree`, the worker of that checkout is
measured as well, in turns with this one, and drawn as `before` to the same scale; an environment of its own, in
`.venv`, is used where it has one. Each worker serves some requests unwatched, for the sums, and as many watched, for
the proportions. The folder gets the pictures, and the stacks in the folded form that other tools read.
"""

import argparse
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import redis

from bench import ROOT
from bench.flame_graph import graph
from bench.flame_stacks import Stack, Stacks, folded, sampled, scaled
from bench.flame_valkey import Entry, Spent, stacks_of
from bench.throughput_load import Load, Template
from bench.throughput_probe import Processes
from bench.throughput_rows import Row, rows, running
from worker.devtools.devstack import Simulator, embedded_valkey, simulator_process

LATENCY_S: Final = 1.0
BODY: Final = 1_000
STALLED_S: Final = 10.0
"""After which a worker counts as ended: a sample of a frame that is just being made ends a process of Python 3.11."""
TRIES: Final = 3
LOGGED: Final = 1_000_000
"""Entries of the SLOWLOG: one request has some 50."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one worker."""

    worker_ms: float
    samples: "Counter[Stack]"
    valkey: Stacks


@dataclass(frozen=True, slots=True)
class Watch:
    """Files through which a worker is sampled."""

    folder: Path

    @property
    def stacks(self) -> Path:
        return self.folder / "stacks"

    @property
    def wanted(self) -> Path:
        return self.folder / "wanted"

    @property
    def settings(self) -> Mapping[str, str]:
        return {"BENCH_FLAME_STACKS": str(self.stacks), "BENCH_FLAME_WANTED": str(self.wanted)}


def measure(tree: Path, in_flight: int, requests: int, redis_url: str, gateway: Simulator) -> Measured:
    """One run of the worker of this checkout."""
    client: Any = redis.Redis.from_url(redis_url, protocol=2, single_connection_client=True)  # pyright: ignore[reportUnknownMemberType]  # untyped kwargs
    client.flushall()
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder))
        row = _row(tree, in_flight, watch)
        template = Template.captured(redis_url, task=row.task, queue=row.queue, prompt="x" * BODY)
        load = Load(client, template, row.stream, stalled_s=STALLED_S)
        with running(row, redis_url, gateway.url) as pid, Processes(pid) as processes:
            load.ramp(in_flight, over_s=LATENCY_S)
            load.keep(in_flight)
            client.config_resetstat()
            began_s, worker_s = _cpu_s(client), processes.cpu_s
            load.keep(requests)
            worker_ms, spent = (processes.cpu_s - worker_s) * 1000 / requests, _spent(client, began_s, requests)
            with _logged(client) as entries, _sampled(watch):
                load.keep(requests)
            load.finish(within_s=10 * LATENCY_S)
        client.close()
        samples = sampled(watch.stacks.read_text(encoding="utf-8"), str(tree))
    return Measured(worker_ms, samples, stacks_of(entries, spent))


def measured(tree: Path, in_flight: int, requests: int, redis_url: str, gateway: Simulator) -> Measured:
    """The same, again where the sampling ended the worker. Raises RuntimeError where it ends each time."""
    for _ in range(TRIES - 1):
        try:
            return measure(tree, in_flight, requests, redis_url, gateway)
        except RuntimeError as error:
            print(f"once more, because of this: {error}")
    return measure(tree, in_flight, requests, redis_url, gateway)


def _row(tree: Path, in_flight: int, watch: Watch) -> Row:
    ours = next(row for row in rows(quick=True) if row.ready == "worker.started")
    own = tree / ".venv" / "bin" / "python"
    command = (str(own) if own.exists() else sys.executable, str(ROOT / "bench" / "flame_sampler.py"), "run")
    settings = {**ours.settings, "WORKER_CONCURRENCY": str(in_flight), **watch.settings}
    return replace(ours, command=command, settings=settings, tree=tree)


@contextmanager
def _sampled(watch: Watch) -> Generator[None]:
    watch.wanted.touch()
    yield
    watch.wanted.unlink()


@contextmanager
def _logged(client: Any) -> Generator[list[Entry]]:
    """A list that has the commands of the block, in their order, once it is over."""
    entries: list[Entry] = []
    client.config_set("slowlog-max-len", LOGGED)
    client.slowlog_reset()
    client.config_set("slowlog-log-slower-than", 0)
    yield entries
    client.config_set("slowlog-log-slower-than", -1)
    newest_first: list[Any] = client.execute_command("SLOWLOG", "GET", LOGGED)  # in one word, it would join the words
    entries += [Entry(client=each[4], words=each[3], us=each[2]) for each in reversed(newest_first)]
    client.slowlog_reset()


def _spent(client: Any, began_s: float, requests: int) -> Spent:
    cpu_ms = (_cpu_s(client) - began_s) * 1000
    stats: dict[str, dict[str, float]] = client.info("commandstats")
    commands: defaultdict[str, float] = defaultdict(float)
    for name, numbers in stats.items():
        commands[name.removeprefix("cmdstat_").partition("|")[0].upper()] += numbers["usec"] / 1000 / requests
    return Spent(cpu_ms / requests, commands)


def _cpu_s(client: Any) -> float:
    spent = client.info("cpu")
    return spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"]


def quietest(runs: Iterable[Sequence[Measured]]) -> int:
    """The round that cost least in all: whatever else the machine does adds to every run of a round."""
    rounds = [sum(run.worker_ms + sum(run.valkey.values()) for run in together) for together in zip(*runs, strict=True)]
    return rounds.index(min(rounds))


def pictures(runs: Mapping[str, Sequence[Measured]], in_flight: int) -> Mapping[str, str]:
    """The text of each file by its name: times are those of the quietest round, samples those of all."""
    place, files = quietest(runs.values()), dict[str, str]()
    samples = {when: sum((run.samples for run in each), Counter[Stack]()) for when, each in runs.items()}
    worker = {when: scaled(samples[when], each[place].worker_ms) for when, each in runs.items()}
    valkey = {when: each[place].valkey for when, each in runs.items()}
    for part, said, drawn in (("worker", "The worker", worker), ("valkey", "Valkey's main thread", valkey)):
        full_ms = max(sum(stacks.values()) for stacks in drawn.values())
        for when, stacks in drawn.items():
            title = f"{said}, {when}: {sum(stacks.values()):.2f} ms of CPU a request, {in_flight} in flight"
            files[f"flame-{part}-{when}.svg"] = graph(stacks, title, full_ms)
            files[f"flame-{part}-{when}.folded"] = folded(stacks)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description="Flame graphs of a request: CPU of a worker, and of Valkey.")
    parser.add_argument("--tree", type=Path, help="an older checkout to compare with")
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1_000, help="watched in each round, and as many before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    options = parser.parse_args()
    trees = {"before": options.tree.resolve(), "after": ROOT} if options.tree else {"after": ROOT}
    runs: dict[str, list[Measured]] = {when: [] for when in trees}
    with embedded_valkey() as valkey, simulator_process() as gateway:
        gateway.configure(latency_median_s=LATENCY_S, latency_sigma=0.1)
        for _ in range(options.rounds):
            for when, tree in trees.items():
                run = measured(tree, options.in_flight, options.requests, valkey.url, gateway)
                runs[when].append(run)
                print(f"{when}: worker {run.worker_ms:.2f} ms, Valkey {sum(run.valkey.values()):.2f} ms a request")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(runs, options.in_flight).items():
        (options.out / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
