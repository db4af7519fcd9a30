"""The main job on SecretFlow: alice and bob on their own devices, each reading its own files.

    python -m experiments.census_secretflow --mode debug
    python -m experiments.census_secretflow --mode production        # both parties on this machine, one process each
    python -m experiments.census_secretflow --mode production --party alice --cluster cluster.json --files DIR

The second command starts the third for each party. `--audit` lets each party write what its messages gave away.
`--protect facing` keeps alice's labels at home; `--epsilon` says how well.
`cluster.json` is the same at every party:

    {"alice": {"address": "host:port"}, "bob": {"address": "host:port"}}

A party that listens elsewhere than where others reach it has `"listen_addr": "host:port"`, too.

`DIR` holds the party's own files, as `experiments.census_income --write-parties DIR` writes them; it needs no other
party's. `--tls DIR` encrypts. `--align psi` aligns rows that differ; for this each party has a second address,
`"intersection": "host:port"`. `--mode simulation` (Ray) needs SecretFlow 1.13. The label party writes `result.json`.

Expected on real rows, as without SecretFlow: test AUC 0.915 (income above 50K) and 0.962 (never married), 10,404 bytes
each way per round.
"""

import contextlib
import dataclasses
import json
import logging
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd

from experiments import census, launch, options, sources
from experiments.party_files import FILES, write_parties
from parties import (
    Intersection,
    PartyError,
    Protection,
    SplitModel,
    Tls,
    VerticalData,
    production,
    pyu,
    spent,
)

PartyName = Literal["alice", "bob"]
PARTIES: tuple[PartyName, ...] = ("alice", "bob")


@dataclasses.dataclass
class Settings:
    mode: Literal["debug", "simulation", "production"] = "debug"  # one process, Ray, or one process per party
    party: PartyName | None = None  # production: be this party; if not given, start both on this machine
    cluster: str | None = None  # production: JSON file with the parties' addresses
    files: str | None = None  # folder with the party's files; if not given, they are written to OUT/parties
    data: str = "auto"  # where the rows to write come from: auto, sampled, or a folder
    epochs: int = 6  # passes over the training rows
    batch_size: int = 128  # rows per round
    in_flight: int = 1  # rounds whose activations bob sends before he takes in the first one's cotangent
    seed: int = 0  # seed that parameters and row order are drawn with
    transport: Literal["brpc_link", "grpc"] = "brpc_link"  # production: what SecretFlow sends messages with
    tls: str | None = None  # production: encrypt, with the files that experiments.certificates writes to this folder
    align: Literal["same", "psi"] = "same"  # same: files have the same ids; psi (production): private set intersection
    deadline: float = 60.0  # seconds of silence after which a party is given up
    scores: Literal["label", "all"] = "label"  # production: who hears the scores, alice's process alone or all
    audit: bool = False  # write what each party gave away: audit-PARTY.json, in production by that party alone
    protect: census.Protect = "none"  # what keeps the labels from bob
    epsilon: float = 1.0  # of each label, under protection
    save: str | None = None  # folder in which each party saves its part of the model
    out: str = "runs/census_secretflow"  # folder to write result.json to

    def __post_init__(self):
        options.at_least_one(self, "epochs", "batch_size", "in_flight")
        if self.deadline <= 0:
            raise options.OptionError(f"--deadline: saw {self.deadline}, wanted a number above 0")
        options.an_epsilon(self, "epsilon")
        census.check_protection(self)
        if self.align == "psi" and self.mode != "production":
            raise options.OptionError("--align psi: wanted --mode production: in one process there is nothing private")
        if self.party is not None and (self.cluster is None or self.files is None):
            raise options.OptionError("--party: wanted --cluster and --files with it")


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    logging.getLogger("parties").setLevel(logging.INFO)  # round trips, too
    try:
        if settings.files is None:
            source = sources.load(settings.data)
            print(source.line, flush=True)
            settings.files = str(Path(settings.out) / "parties")
            write_parties(Path(settings.files), source.train, source.test)
        if settings.mode == "production" and settings.party is None:
            sys.exit(start_all(settings))
        with devices_of(settings) as devices:
            train(settings, Path(settings.files), devices)
    except (sources.SourceError, PartyError) as error:
        sys.exit(str(error))


def start_all(settings: Settings) -> int:
    """Run every party as a process of this machine, and return the exit code."""
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    cluster = out / "cluster.json"
    addresses = [f"127.0.0.1:{port}" for port in ports(2 * len(PARTIES))]
    pairs = zip(PARTIES, addresses[::2], addresses[1::2], strict=True)
    cluster.write_text(json.dumps({party: {"address": own, "intersection": psi} for party, own, psi in pairs}))
    command = [sys.executable, "-m", "experiments.census_secretflow"]
    given = {party: dataclasses.replace(settings, party=party, cluster=str(cluster)) for party in PARTIES}
    commands: dict[str, list[str]] = {p: [*command, *options.command_line(own)] for p, own in given.items()}
    return launch.launch(commands, patience=settings.deadline + launch.GRACE)


def ports(count: int = len(PARTIES)) -> list[int]:
    """Numbers of free ports of this machine."""
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in sockets]


@contextlib.contextmanager
def devices_of(settings: Settings) -> Iterator[dict[str, Any]]:
    """Party -> its device, in the mode that the settings name."""
    if settings.mode == "production" and settings.party is not None:
        launch.end_with_parent()
        fields = "address", "listen_addr"
        places = {p: {f: place[f] for f in fields if f in place} for p, place in read_cluster(settings).items()}
        how: dict[str, Any] = {"transport": settings.transport, "tls": tls_of(settings), "deadline": settings.deadline}
        with production(places, settings.party, **how) as devices:
            yield devices
        return
    import secretflow as sf

    if settings.mode == "debug":
        sf.init(list(PARTIES), debug_mode=True, logging_level="warning")
    else:
        sf.init(list(PARTIES), address="local", logging_level="warning", log_to_driver=False)
    yield {party: sf.PYU(party) for party in PARTIES}
    sf.shutdown()


def read_cluster(settings: Settings) -> dict[str, dict[str, str]]:
    assert settings.cluster is not None  # --party comes with --cluster
    return json.loads(Path(settings.cluster).read_text())


def tls_of(settings: Settings) -> Tls | None:
    folder = None if settings.tls is None else Path(settings.tls)
    names = f"{settings.party}.pem", f"{settings.party}.key", "authority.pem"
    return None if folder is None else Tls(*(folder / name for name in names))


def intersection_of(settings: Settings) -> Intersection | None:
    if settings.align == "same":
        return None
    addresses = {party: place["intersection"] for party, place in read_cluster(settings).items()}
    return Intersection(addresses, tls_of(settings))


def train(settings: Settings, files: Path, devices: Mapping[str, Any]) -> None:
    """Train and evaluate, in the process of every party; only the label party's has the scores, and reports them."""
    data = {}
    for part, names in FILES.items():
        paths = {devices[party]: files / name for party, name in names.items()}
        how: dict[str, Any] = {"intersection": intersection_of(settings), "deadline": settings.deadline}
        labels = list(census.LABELS)
        data[part] = VerticalData.from_files(paths, on="id", sep="|", label_party="alice", labels=labels, **how)
    placement, protect = pyu(devices, settings.deadline, settings.scores), census.protection(settings)
    model = SplitModel(**census.arguments(), placement=placement, seed=settings.seed, protect=protect)
    heuristic = isinstance(protect, Protection)
    began = time.perf_counter()
    how = {"epochs": settings.epochs, "batch_size": settings.batch_size, "in_flight": settings.in_flight}
    history = model.fit(data["train"], validation=data["test"], record=settings.audit or heuristic, **how)
    scores = model.evaluate(data["test"])
    seconds = time.perf_counter() - began
    if heuristic and (changed := census.sensitivity(model)):  # in production at the label party alone
        census.show_sensitivity(changed, settings.epochs)
    if settings.save is not None:
        model.save(settings.save)
    if settings.audit:
        for party, lines in model.audit(data["train"]).groupby("party"):
            file = Path(settings.out) / f"audit-{party}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines.to_json(file, orient="records", indent=1)
            print(f"written: {file.name} to {settings.out}", flush=True)
    if settings.party in (None, "alice"):
        report(settings, model, history, scores, seconds, len(data["train"]))


def report(settings: Settings, model: SplitModel, history, scores, seconds: float, rows: int) -> None:
    tasks = {label: {"split": scores[f"{label}/auc"]} for label in census.LABELS}
    print(f"\nTest AUC, 1 seed(s):\n{pd.DataFrame(tasks).T.to_string(float_format='{:.4f}'.format)}\n")
    sizes = model.bytes_per_round()
    if model.guarantee is not None and (found := spent(model.guarantee)) is not None:
        census.show_epsilon({"tasks": found.tasks, "row": found.row}, settings.epsilon)
    census.show_bytes(settings, sizes)
    rounds = -(-rows // settings.batch_size)
    epoch = float(np.median(history["seconds"]))
    print(f"seconds: {seconds:.1f} in all, {epoch:.2f} per epoch (median): {rounds / epoch:.0f} rounds per second")
    import secretflow as sf

    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "settings": dataclasses.asdict(settings),
        "versions": {"secretflow": sf.__version__, "jax": jax.__version__},
        "history": history,
        "test": scores,
        "bytes": sizes,
        "rounds_per_second": rounds / epoch,
    }
    (out / "result.json").write_text(json.dumps(result, indent=1))
    print(f"written: result.json to {out}", flush=True)


def parse(arguments: Sequence[str] | None) -> Settings:
    return options.parse(Settings, __doc__, arguments)


if __name__ == "__main__":
    main()
