"""All parties of a model together: what would be the same on every placement is written here once."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parties.errors import MessageError, ModelError, NumberError, PartyError
from parties.party.participant import REQUESTS, Answer, AuditFacts, DataFacts, Participant, Request
from parties.party.transcript import Recording
from parties.placement.contract import Placement, Primitive, Rounds
from parties.programs.network import TrainState
from parties.protocol.passes import Pass


class Consortium:
    """The parties of one model on a placement.

    Attributes:
        placement: where they are.
        names: every party, the label party last.
        fitted: whether the columns are fitted and the parameters drawn.
    """

    def __init__(self, placement: Placement, parties: Iterable[str], label_party: str):
        self.placement, self.fitted = placement, False
        self.names = (*(party for party in parties if party != label_party), label_party)

    @property
    def columns(self) -> dict[str, tuple]:
        """The fitted column specifications of each party in this process."""
        return {name: party.columns for name, party in self.placement.parties.items() if party.columns}

    def here(self) -> Mapping[str, Participant]:
        """Every party, the label party last; raises as `states`."""
        if not self.placement.parties:
            wanted = "parties of this process, or the folders that `save` writes"
            raise ModelError(field="states", seen="parties on devices, where their states stay", wanted=wanted)
        return self.placement.parties

    def states(self) -> dict[str, dict[str, TrainState]]:
        """The states that each party trains, on the host: party -> "base", "fuse" or both.

        Raises:
            ModelError: the parties are on devices, where their states stay.
        """
        return {name: party.states() for name, party in self.here().items()}

    def restore(self, states: Mapping[str, Mapping[str, TrainState]]) -> None:
        """Give each party the states that `states` returned; raises as that."""
        for name, party in self.here().items():
            party.restore(states[name])

    def hold(self, data: Mapping[str, Any], *, digest: bool = False, record: Recording | None = None) -> None:
        """Let every party hold its part of data sets, "train", "predict" and so on. All parties hold them, or none.

        The first call fits the columns and draws parameters. With `digest` each party digests its part, for
        checkpoints, and refuses data other than its checkpoint was written with. With `record` each party records what
        it sends and receives while it trains.
        """
        facts = {name: DataFacts(name, rows.labels, rows.row_weight, rows.selection) for name, rows in data.items()}
        sets = [f._replace(digest=digest, record=record if name == "train" else None) for name, f in facts.items()]
        frames = {p: [rows.frames[p] for rows in data.values()] for p in self.names}
        self._settle(self.placement.ask(Participant.hold, {p: (sets, *frames[p]) for p in self.names}))

    def adopt(self, path: Path, *, optimizer: bool, within: str = "", resumes: bool = False) -> None:
        """Let every party take what its folder holds, or the checkpoint or member in it of that name."""
        self._settle(self._ask(Participant.adopt, str(path), optimizer, within, resumes))

    def save(self, path: Path, epoch: int, within: str = "", facts: Mapping[str, Any] = {}) -> None:
        """Let every party write its folder, or a member's in it, with these facts in its card."""
        self._ask(Participant.save, str(path), epoch, within, dict(facts))

    def export(self, path: Path, epoch: int) -> None:
        """Let every party write its part as StableHLO, once none refuses."""
        self._ask(Participant.prepare_export, str(path), epoch)
        self._ask(Participant.export, str(path))

    def checkpoint(self, path: Path, name: str, epoch: int, public: Mapping, private: Mapping) -> None:
        """Let every party write its checkpoint: `public` facts of the run in all, `private` in the label party's."""
        run = {party: dict(public) for party in self.names}
        run[self.names[-1]] |= private
        self.placement.ask(Participant.checkpoint, {p: (str(path), name, epoch, run[p]) for p in self.names})

    def keep(self) -> None:
        """Let every party keep its states as they are now."""
        self._ask(Participant.keep)

    def restore_kept(self) -> None:
        """Let every party go back to the states that it kept."""
        self._ask(Participant.restore_kept)

    def agree(self, requests: Sequence[Request], stop: bool) -> tuple[list[Request], bool]:
        """What the label party's driver asked for, whatever another driver did: for every driver to carry out.

        Raises:
            MessageError: the label party answers anything else.
        """
        label = self.names[-1]
        answer = self.placement.ask(Participant.decide, {label: (list(requests), stop)})[label]
        try:
            agreed, stops = [(request, epoch) for request, epoch in answer["requests"]], answer["stop"]
            if not all(request in REQUESTS and type(epoch) is int and epoch >= 0 for request, epoch in agreed):
                raise ValueError(f"requests {agreed}")
            if not isinstance(stops, bool):
                raise ValueError(f"stop {stops!r}")
            return agreed, stops
        except (KeyError, TypeError, ValueError) as error:
            wanted = f"requests of {REQUESTS} with an epoch, and whether to stop"
            raise MessageError(party=label, field="decision", seen=str(error)[:200], wanted=wanted) from error

    def scores(self) -> dict[str, float]:
        """The scores of the pass that has ended; none where they are for another process alone."""
        label = self.names[-1]
        return self.placement.ask(Participant.statistics, {label: ()})[label].get("scores", {})

    def conclude(self) -> None:
        """End a run under protection.

        Raises:
            NumberError: the label party's own part was not finite; for the process that may know it alone.
            MessageError: the label party answers anything else.
        """
        label, fields = self.names[-1], {"party", "field", "seen", "wanted"}
        error = self.placement.ask(Participant.conclude, {label: ()})[label].get("error")
        if error is None:
            return
        if not isinstance(error, dict) or set(error) != fields or not all(isinstance(v, str) for v in error.values()):
            wanted = f"an error of {sorted(fields)}"
            raise MessageError(party=label, field="conclusion", seen=repr(error)[:200], wanted=wanted)
        raise NumberError(**error)

    def evaluate(self, facts: Pass, rounds: Rounds) -> dict[str, float]:
        """As `scores`, of one pass that trains nothing."""
        self.placement.evaluate(facts, rounds)
        return self.scores()

    def predict(self, facts: Pass, rounds: Rounds) -> tuple[Any, Any]:
        """Predictions by row id, and what the fuse network's `inspect` sees; on devices references to both."""
        return self.placement.evaluate(facts, rounds)

    def predict_to(self, path: Path, facts: Pass, rounds: Rounds) -> None:
        """Write predictions to a file, at the label party; an error leaves an older file as it was."""
        label = self.names[-1]
        try:
            self.placement.ask(Participant.predict_to, {label: (facts.data, str(path))})
            self.placement.evaluate(facts, rounds)
        except BaseException:  # Ctrl-C, too
            if self.placement.abilities.alone:  # elsewhere the label party's process does it by itself
                with contextlib.suppress(PartyError):
                    self.placement.ask(Participant.abandon_file, {label: ()})
            raise

    def logits(self) -> tuple[Any, ...]:
        """After `predict` the logits `[N, K_t]` of each task, on the host, where the parties are in this process."""
        return self.here()[self.names[-1]].label_role().predictions()[0]

    def audit(self, data: Any, how: AuditFacts) -> list[list]:
        """The lines of all parties in this process, the label party's first; on devices of this process's own party."""
        facts = DataFacts("audit", data.labels, data.row_weight, data.selection)
        seen = {p: self.names if self.placement.parties else (p,) for p in self.names}
        asked = {p: (facts, how, seen[p], *(data.frames[q] for q in seen[p])) for p in reversed(self.names)}
        answers = self.placement.ask(Participant.audit, asked)
        return [line for answer in answers.values() for line in answer.get("lines", ())]

    def sensitivity(self, flips: int, seed: int) -> list[list]:
        """The lines of the label party, for its process alone."""
        label = self.names[-1]
        return self.placement.ask(Participant.sensitivity, {label: (flips, seed)})[label].get("lines", [])

    def account(self, scored: str | None) -> Mapping[str, Answer]:
        """As `Participant.account`, of all parties; {} of those whose answer is for another process."""
        return self._ask(Participant.account, scored)

    def _settle(self, answers: Mapping[str, Answer]) -> None:
        """Let every party take what it proposed, as all have agreed."""
        if not self.fitted:
            self._ask(Participant.draw, {p: a["struct"] for p, a in answers.items() if a["struct"] is not None})
        self._ask(Participant.settle)
        self.fitted = True

    def _ask(self, primitive: Primitive, *arguments: Any) -> Mapping[str, Answer]:
        return self.placement.ask(primitive, dict.fromkeys(self.names, arguments))
