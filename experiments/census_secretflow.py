"""The main job on SecretFlow: a study, and `mmoe-jax` in a process per party on this machine.

    python -m experiments.census_secretflow [--tls] [--align psi] [--protect facing] [--in-flight K] [--audit]
    python -m experiments.census_secretflow --simulate      # all parties in one process, without SecretFlow

Writes the parties' tables, the study and each party's own file to `--out`, and has `mmoe-jax train` and `evaluate` do
the rest, in its folder `run`; what the label party says of them becomes `result.json`. Between machines the command is
used by itself: OPERATING.md. `--protect facing` keeps alice's labels at home; `--epsilon` says how well.

Expected on real rows, as without SecretFlow: test AUC 0.915 (income above 50K) and 0.962 (never married), 10,404 bytes
each way per round.
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from experiments import census, certificates, launch, options, sources
from experiments.party_files import FILES, write_parties
from parties import Meeting, PartyError, Rows, SplitModel, Study, Training, spent
from parties.study.text import write_text

PartyName = Literal["alice", "bob"]
PARTIES: tuple[PartyName, ...] = ("alice", "bob")
STUDY, TABLES, KEYS, RUN = "study.toml", "parties", "certificates", "run"  # in the folder of what is written


@dataclasses.dataclass
class Settings:
    simulate: bool = False  # run all parties in one process, without SecretFlow
    data: str = "auto"  # where the rows come from: auto, sampled, or a folder
    epochs: int = 6  # passes over the training rows
    batch_size: int = 128  # rows per round
    in_flight: int = 1  # rounds whose activations bob sends before he takes in the first one's cotangent
    seed: int = 0  # seed that parameters and row order are drawn with
    transport: Literal["brpc_link", "grpc"] = "brpc_link"  # what SecretFlow sends messages with
    tls: bool = False  # encrypt, with certificates made for the run
    align: Literal["same", "psi"] = "same"  # same: files have the same ids; psi: private set intersection finds them
    deadline: float = 60.0  # seconds of silence after which a party is given up
    scores: Literal["label", "all"] = "label"  # who hears the scores, alice's process alone or all
    audit: bool = False  # each party writes what it gave away, to run/audit-PARTY.json
    protect: census.Protect = "none"  # what keeps the labels from bob
    epsilon: float = 1.0  # of each label, under protection
    out: str = "runs/census_secretflow"  # folder to write all files to

    def __post_init__(self):
        options.at_least_one(self, "epochs", "batch_size", "in_flight")
        if self.deadline <= 0:
            raise options.OptionError(f"--deadline: saw {self.deadline}, wanted a number above 0")
        options.an_epsilon(self, "epsilon")
        census.check_protection(self)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = options.parse(Settings, __doc__, arguments)
    try:
        source = sources.load(settings.data)
        print(source.line, flush=True)
        prepare(settings, source)
    except (sources.SourceError, PartyError) as error:
        sys.exit(str(error))
    trained = do(settings, "train")
    report(settings, trained, do(settings, "evaluate")["scores"], len(source.train))


def study(settings: Settings) -> Study:
    """What the parties agree on."""
    return Study(
        **census.arguments(),
        seed=settings.seed,
        protect=census.protection(settings),
        rows=Rows(alignment=settings.align, validation="file"),
        training=Training(settings.epochs, settings.batch_size, in_flight=settings.in_flight, audit=settings.audit),
        meeting=Meeting(settings.tls, settings.transport, settings.deadline, settings.scores),
    )


def prepare(
    settings: Settings,
    source: sources.Source,
    addresses: Mapping[str, str] | None = None,
    listen: Mapping[str, str] | None = None,
) -> None:
    """Write what the command reads: tables, the study, own files, and certificates if `--tls` asks for them.

    Args:
        addresses: party -> where it is reached; by default free ports of this machine.
        listen: party -> where it listens, if that is another.

    Raises:
        SourceError, PartyError: something cannot be written.
    """
    out = Path(settings.out)
    write_parties(out / TABLES, source.train, source.test)
    study(settings).write(out / STUDY)
    if settings.tls:
        certificates.make(out / KEYS, PARTIES)
    free = [f"127.0.0.1:{port}" for port in launch.ports(2 * len(PARTIES))]
    test = {party: f"{TABLES}/{name}" for party, name in FILES["test"].items()}
    for party in PARTIES:
        files = {"train": f"{TABLES}/{FILES['train'][party]}", "validation": test[party], "test": test[party]}
        own: dict[str, Any] = {"party": party, "files": files | {"separator": "|"}}
        own["addresses"] = dict(addresses or zip(PARTIES, free, strict=False))
        if listen is not None:
            own["listen"] = listen[party]
        if settings.align == "psi":
            own["intersection"] = dict(zip(PARTIES, free[len(PARTIES) :], strict=True))
        if settings.tls:
            pem = {"certificate": f"{party}.pem", "key": f"{party}.key", "authority": "authority.pem"}
            own["tls"] = {name: f"{KEYS}/{file}" for name, file in pem.items()}
        write_text(out / f"{party}.toml", own)


def do(settings: Settings, verb: Literal["train", "evaluate"]) -> dict[str, Any]:
    """Let all parties do the verb on this machine, and return what the label party says of it.

    A run that was trained before makes room for a new one. Where a party fails, this process ends with its exit code.
    """
    out = Path(settings.out)
    if verb == "train":
        shutil.rmtree(out / RUN, ignore_errors=True)
    owns: dict[str, list[str]] = {party: ["--own", str(out / f"{party}.toml")] for party in PARTIES}
    if settings.simulate:
        owns = {"simulated": ["--simulate", *(option for own in owns.values() for option in own)]}
    given = [verb, str(out / STUDY), "--out", str(out / RUN)]
    commands = {name: launch.module("parties.command", *given, *own) for name, own in owns.items()}
    if code := launch.launch(commands, patience=settings.deadline + launch.GRACE):
        sys.exit(code)
    return json.loads((out / RUN / f"{next(iter(owns))}.json").read_text())


def report(settings: Settings, trained: Mapping[str, Any], scores: Mapping[str, float], rows: int) -> None:
    tasks = {label: {"split": scores[f"{label}/auc"]} for label in census.LABELS}
    print(f"\nTest AUC, 1 seed(s):\n{pd.DataFrame(tasks).T.to_string(float_format='{:.4f}'.format)}\n")
    guarantee = SplitModel(**study(settings).model_arguments()).guarantee
    if guarantee is not None and (found := spent(guarantee)) is not None:
        census.show_epsilon({"tasks": found.tasks, "row": found.row}, settings.epsilon)
    census.show_bytes(settings, trained["bytes"])
    seconds = trained["history"]["seconds"]
    epoch = float(np.median(seconds))
    speed = -(-rows // settings.batch_size) / epoch
    print(f"seconds: {sum(seconds):.1f} in all, {epoch:.2f} per epoch (median): {speed:.0f} rounds per second")
    packages = ["jax"] if settings.simulate else ["jax", "secretflow"]
    result = {
        "settings": dataclasses.asdict(settings),
        "versions": {package: metadata.version(package) for package in packages},
        "history": trained["history"],
        "test": scores,
        "bytes": trained["bytes"],
        "rounds_per_second": speed,
    }
    (Path(settings.out) / "result.json").write_text(json.dumps(result, indent=1))
    print(f"written: result.json to {settings.out}", flush=True)


if __name__ == "__main__":
    main()
