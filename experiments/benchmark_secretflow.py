"""Rounds per second in production on this machine, beside a bare loop with as many calls and messages.

    python -m experiments.benchmark_secretflow [--transport brpc_link|grpc] [--tls] [--in-flight K] [--repeats N]

Two processes on loopback train on sampled rows. In each repeat, an epoch of the main job (`ours`), one with K rounds in
flight (`in_flight`) and one of each bare loop take turns on the same engine and transport. `bare` makes the main job's
calls, one per party and round; `bare_3` makes two at bob, one forward and one backward. Prints medians, and ratios
within a repeat; writes `benchmark.json`.
"""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import census, certificates, launch, options
from experiments.census_secretflow import PARTIES, PartyName
from experiments.party_files import FILES, write_parties
from parties import Tls, VerticalData, production, pyu
from parties.devices.activity import Activity
from parties.devices.answers import say
from parties.devices.driver import Devices
from parties.example import sampler
from parties.protocol.messages import encoded_bytes

BATCH, WIDTH = 128, 20  # rows per round, width of bob's activation


@dataclasses.dataclass
class Settings:
    transport: Literal["brpc_link", "grpc"] = "brpc_link"  # what SecretFlow sends messages with
    tls: bool = False  # encrypt, with certificates made for the run
    in_flight: int = 4  # rounds in flight of the main job's second loop
    repeats: int = 7  # timed epochs of each loop
    rows: int = 32_561  # sampled rows in an epoch
    out: str = "runs/benchmark_secretflow"  # folder to write benchmark.json, the parties' files and certificates to
    party: PartyName | None = None  # be the process of this party; the benchmark starts one for each
    cluster: str | None = None  # the parties' addresses as JSON, for --party

    def __post_init__(self):
        options.at_least_one(self, "in_flight", "repeats")
        if self.party is not None and self.cluster is None:
            raise options.OptionError("--party: wanted --cluster with it")


class Bare:
    """A party that computes nothing: it takes and returns bytes, as many as in the main job."""

    def __init__(self, party: str, activity: Activity):
        self.reply, self.activity = bytes(encoded_bytes((BATCH, WIDTH), "float32")), activity

    def turn(self, message: bytes | None) -> bytes:
        with self.activity.call():
            return self.reply

    def take(self, message: bytes) -> None:
        with self.activity.call():
            pass

    def end(self, message: bytes) -> bytes:
        return say()


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    if settings.party is not None and settings.cluster is not None:
        launch.end_with_parent()
        folder = Path(settings.out) / "certificates"
        names = f"{settings.party}.pem", f"{settings.party}.key", "authority.pem"
        tls = Tls(*(folder / name for name in names)) if settings.tls else None
        with production(json.loads(settings.cluster), settings.party, transport=settings.transport, tls=tls) as devices:
            measure(settings, devices)
        return
    rows = sampler.sample(settings.rows, seed=0)
    write_parties(Path(settings.out) / "parties", rows, rows.head(100))
    if settings.tls:
        certificates.make(Path(settings.out) / "certificates", PARTIES)
    places = {
        party: {"address": f"127.0.0.1:{port}"} for party, port in zip(PARTIES, launch.ports(len(PARTIES)), strict=True)
    }
    command = [sys.executable, "-m", "experiments.benchmark_secretflow"]
    given = {party: dataclasses.replace(settings, party=party, cluster=json.dumps(places)) for party in PARTIES}
    commands: dict[str, list[str]] = {p: [*command, *options.command_line(own)] for p, own in given.items()}
    sys.exit(launch.launch(commands, patience=75))


def measure(settings: Settings, devices: Mapping[str, Any]) -> None:
    files = {devices[party]: Path(settings.out) / "parties" / name for party, name in FILES["train"].items()}
    data = VerticalData.from_files(files, on="id", sep="|", label_party="alice", labels=list(census.LABELS))
    model = census.model(0, pyu(devices))
    rounds = -(-len(data) // BATCH)
    loops = {"bare": bare_loop(devices, rounds, apart=False), "bare_3": bare_loop(devices, rounds, apart=True)}

    def epoch(in_flight: int) -> float:
        return model.fit(data, batch_size=BATCH, in_flight=in_flight)["seconds"][0]

    loops |= {"ours": partial(epoch, 1), "in_flight": partial(epoch, settings.in_flight)}
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(settings.repeats + 1):
        for name, run in loops.items():
            seconds = run()
            if repeat:  # the first one compiles
                speeds[name].append(rounds / seconds)
    if settings.party != "alice":
        return
    medians = {name: float(np.median(values)) for name, values in speeds.items()}
    secure = " with TLS" if settings.tls else ""
    speed = ", ".join(f"{name} {value:.0f}" for name, value in medians.items())
    print(f"{settings.transport}{secure}, rounds per second: {speed}")
    result: dict[str, Any] = {"transport": settings.transport, "rounds_per_second": speeds, "ratios": {}}
    for above, below in itertools.combinations(("in_flight", "ours", "bare", "bare_3"), 2):
        low, median, high = np.quantile(np.array(speeds[above]) / np.array(speeds[below]), [0.25, 0.5, 0.75])
        result["ratios"][f"{above}/{below}"] = {"median": median, "low": low, "high": high}
        print(f"{above}/{below} {median:.2f} (quartiles {low:.2f} to {high:.2f})")
    print(f"{rounds / medians['ours']:.2f} s per epoch, {rounds / medians['in_flight']:.2f} in flight", flush=True)
    (Path(settings.out) / "benchmark.json").write_text(json.dumps(result, indent=1))


def bare_loop(pyus: Mapping[str, Any], rounds: int, apart: bool) -> Callable[[], float]:
    """A function that runs one epoch of calls and messages, in which nothing is computed, and returns its seconds."""
    devices = Devices(pyus, 60.0)
    alice, bob = (devices.actor(Bare, ("turn", "take", "end"), party, party) for party in PARTIES)

    def run() -> float:
        began, down = time.perf_counter(), None
        for _ in range(rounds):
            up = devices.send("bob", bob.turn(None if apart else down), "alice")
            down = devices.send("alice", alice.turn(up), "bob")
            if apart:
                bob.take(down)
        devices.ask({"alice": alice.end(devices.send("bob", bob.turn(down), "alice"))})
        return time.perf_counter() - began

    return run


if __name__ == "__main__":
    main()
