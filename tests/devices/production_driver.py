"""One party of a production run, for tests: trains epoch by epoch, says so, saves. Its argument is a JSON object."""

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from experiments import census
from parties import (
    Callback,
    EarlyStopping,
    Intersection,
    SplitModel,
    Study,
    Tls,
    VerticalData,
    production,
    pyu,
)
from parties.devices import agreement
from parties.devices import driver as monkey
from parties.devices import production as production_module
from parties.devices.addresses import listen, split_address
from parties.devices.answers import say
from parties.devices.wire import Lane
from parties.party.roles import FeatureRole, LabelRole
from tests import devices as devices_module
from tests.devices.lingering import linger


def main(settings: dict) -> None:
    jax.config.update("jax_threefry_partitionable", True)  # as tests/conftest.py
    logging.basicConfig()  # SecretFlow does so, too, but only when it starts
    logging.getLogger("parties").setLevel(logging.INFO)
    interrupted = signal.getsignal(signal.SIGINT)
    party, deadline = settings["party"], settings["deadline"]
    tls = Tls(*settings["tls"][party]) if party in settings.get("tls", {}) else None
    if settings.get("careless") == party:  # one that does not look at its own certificate
        Tls.check = lambda *_: {}  # type: ignore[method-assign]
    how = {"transport": settings["transport"], "tls": tls, "deadline": deadline}
    received = note_received() if "note" in settings else []
    if settings.get("lingers", {}).get(party):
        linger(settings["lingers"][party])
    if settings.get("robbed") == party:
        be_robbed(settings["cluster"][party]["address"])
    with production(settings["cluster"], party, **how) as devices:
        if settings.get("fault") == party:  # an exception where none is foreseen
            monkey.DataReader.read = lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
        if "studies" in settings:
            meet(settings, devices)
        paths = {devices[p]: settings["files"][p] for p in devices}
        labels = settings.get("labels", list(census.LABELS))
        names = {"on": "id", "sep": "|", "label_party": "alice", "labels": labels}
        if "intersection" in settings:
            places = settings["intersection"]
            names["intersection"] = Intersection(places[party] if isinstance(places[party], dict) else places, tls)
        began, sent = time.monotonic(), loopback_bytes()
        data = VerticalData.from_files(paths, deadline=deadline, **names)
        read = {"rows": len(data), "seconds": time.monotonic() - began, "bytes": loopback_bytes() - sent}
        print("read", json.dumps(read), flush=True)
        if "leave" in settings:
            sys.exit(settings["leave"])
        place = pyu(devices, deadline, settings.get("scores", "label"))
        if "kill_at" in settings:
            be_killed(*settings["kill_at"])
        if "checkpoint" in settings:
            model = checkpointed(settings, place, data)
        else:
            model = SplitModel(**census.arguments(), placement=place, seed=0)
        audit = None
        if "stopping" in settings:
            stopping = EarlyStopping(**settings["stopping"])
            rules = {"epochs": settings["epochs"], "batch_size": 128, "progress": False}
            model.fit(data, validation=data, callbacks=[Says(), stopping], record=True, **rules)
            audit = model.audit(data)
        if "pause_at" in settings:
            pause(settings["pause_at"])
        how = {"batch_size": settings.get("batch_size", 128), "in_flight": settings.get("in_flight", 1)}
        for epoch in range(0 if {"checkpoint", "stopping"} & settings.keys() else settings["epochs"]):
            history = model.fit(data, progress=False, **how)
            if settings.get("hostile") == party:
                send_instead(settings["payload"])
            print(f"epoch {epoch}", json.dumps({n: v for n, v in history.items() if n != "seconds"}), flush=True)
        written = model.predict(data, to=settings["to"]) if "to" in settings else None
        scores = model.evaluate(data)
        table = model.predict(data)
        model.save(settings["save"])
        others = {spec.name for spec in (census.BOB if party == "alice" else census.ALICE)}
        frames = [value for value in gc.get_objects() if isinstance(value, pd.DataFrame)]
        done: dict[str, Any] = {"reachable": devices_module.rows_reachable([model, data], len(data))[1]}
        done["of others"] = [column for frame in frames for column in frame.columns if column in others]
        done["rows"] = len(place.reveal(table)) if settings.get("reveal") else None
        done |= {"bytes": model.bytes_per_round(), "epoch": model.epoch, "to": written and str(written)}
        done["audit"] = [] if audit is None else audit.values.tolist()
        done |= {"scores": scores, "history": model.history, "stopped": model.stopped}
        Path(settings["save"]).with_suffix(f".{party}").write_bytes(b"".join(received))
        print("done", json.dumps(done), flush=True)
    print("after", signal.getsignal(signal.SIGINT) is interrupted, gc.get_freeze_count(), flush=True)


def be_robbed(address: str) -> None:
    """Something else listens at this party's port as soon as all parties have greeted."""
    greet = production_module.greet

    def greeted(*arguments: Any) -> None:
        greet(*arguments)
        thieves.append(listen(split_address(address) or ("", 0)))

    production_module.greet = greeted  # type: ignore[assignment]


thieves: list[socket.socket] = []


def meet(settings: dict, devices) -> None:
    """The parties compare their studies."""
    if settings.get("junk") == settings["party"]:
        agreement._tell = lambda digests: say(digests=list(digests))  # type: ignore[assignment]
    agreement.agree(devices, Study.read(settings["studies"][settings["party"]]).digests, settings["deadline"])
    print("agreed", flush=True)


class Says(Callback):
    def on_epoch_end(self, training):
        print(f"epoch {training.epoch}", flush=True)


def checkpointed(settings: dict, place, data) -> SplitModel:
    """All epochs in one run with checkpoints, begun or resumed."""
    arguments, path = census.arguments(), settings["checkpoint"]
    if settings["resume"]:
        optimizers = {name: party.optimizer for name, party in arguments["parties"].items()}
        code = {"optimizers": optimizers, "fuse_optimizer": arguments["fuse_optimizer"]}
        return SplitModel.resume(path, data, placement=place, callbacks=[Says()], progress=False, **code)
    model = SplitModel(**arguments, placement=place, seed=0)
    how = {name: settings[name] for name in ("epochs", "batch_size", "in_flight", "every_rounds")}
    model.fit(data, checkpoint=path, callbacks=[Says()], progress=False, **how)
    return model


def note_received() -> list[bytes]:
    """From now on this list has every frame that comes to this process."""
    frames: list[bytes] = []
    unpack = Lane.unpack
    Lane.unpack = lambda self, frame: frames.append(frame) or unpack(self, frame)  # type: ignore[method-assign]
    return frames


def pause(at: int) -> None:
    """From now on the label party stops its process before that round of each pass, and others say every turn."""
    step, turn = LabelRole.step, FeatureRole.turn

    def stepped(self, activations):
        schedule = self.present_schedule()
        if schedule.round == at:
            print(f"stopped in {schedule.facts.phase}", flush=True)
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # by os.kill this thread may go on for a while
        return step(self, activations)

    def turned(self, cotangent):
        print(f"turn of {self.present_schedule().facts.phase}", flush=True)
        return turn(self, cotangent)

    LabelRole.step, FeatureRole.turn = stepped, turned  # type: ignore[method-assign]


def be_killed(epoch: int, round: int) -> None:
    """A party that is not the label party is killed before that round."""
    turn = FeatureRole.turn

    def turned(self, cotangent):
        schedule = self.present_schedule()
        if (schedule.facts.epoch, schedule.round) == (epoch, round):
            print(f"killed with {len(self._flying)} rounds in flight", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return turn(self, cotangent)

    FeatureRole.turn = turned  # type: ignore[method-assign]


def send_instead(payload: str) -> None:
    """From now on this party's transport sends these bytes, whatever it is given."""
    from secretflow.distributed.fed.global_context import get_global_context

    get_global_context()._proxy._packed = lambda *_: bytes.fromhex(payload)


def loopback_bytes() -> int:
    """Bytes that this machine has sent to itself."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith("lo:")).split()[9])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test run in the background has not
    main(json.loads(sys.argv[1]))
