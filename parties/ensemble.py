"""`Ensemble`: split models of the same tasks that predict together."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax.numpy as jnp
import optax
import pandas as pd
from flax import linen as nn

from parties.data.vertical_data import VerticalData
from parties.errors import ModelError, SaveError
from parties.model.arguments import check_table_path
from parties.model.arrays import party_data, prediction_scores, prediction_table
from parties.model.balancing import Balance
from parties.model.protection import Facing
from parties.placement.contract import Placement
from parties.privacy.heuristics import Protection
from parties.saving.members import check_facts, find_members, member_name, new_facts, remove_others
from parties.saving.table_file import TableFile
from parties.split_model import SplitModel


class Ensemble:
    """Trained split models, whose prediction is the mean of their predictions.

    The protocol does not change. Each of K members predicts in a pass of its own: a row costs K activations from every
    party beside the label party, and K times the bytes. So the label party sees K activations of each row where it saw
    one, and may infer more about the columns behind them; and the other parties have seen the cotangents of K runs, of
    which under protection the epsilons add (`spent(guarantee, releases=K)`).

    All members are in this process. On devices predictions stay with the label party, and an ensemble is refused: there
    a script predicts with each model, and lets the label party's device average what the references stand for.

    Attributes:
        models: the members. Their networks, optimisers, seeds and protection may differ, and so may how they read the
            columns; their parties, label party, tasks and the names of the columns are the same.

    Raises:
        ModelError: no model; or naming the member, one that was never fitted, that is on devices, or that differs from
            the first where it may not.
    """

    def __init__(self, models: Sequence[SplitModel]) -> None:
        _check(models)
        self.models = tuple(models)

    @overload
    def predict(self, data: VerticalData, *, batch_size: int | None = None, to: None = None) -> pd.DataFrame: ...

    @overload
    def predict(self, data: VerticalData, *, batch_size: int | None = None, to: str | Path) -> Path: ...

    def predict(
        self, data: VerticalData, *, batch_size: int | None = None, to: str | Path | None = None
    ) -> pd.DataFrame | Path:
        """The mean of the members' predictions, in a table as `SplitModel.predict` returns it.

        Args:
            batch_size: rows per round; by default that of each member's latest `fit`.
            to: a file to which it is written, as by `SplitModel.predict`. All members' logits of all rows are in memory
                all the same, as the mean is of these.

        Raises:
            DataError, ModelError, SaveError: as `SplitModel.predict`.
        """
        path, first = None if to is None else check_table_path(to), self.models[0]
        if path is None:
            return prediction_table(first.tasks, self._logits(data, batch_size), data.index)
        file = TableFile(path, first.label_party)
        try:
            file.write(prediction_table(first.tasks, self._logits(data, batch_size), data.index))
            file.close()
        finally:
            file.abandon()
        return path

    def evaluate(self, data: VerticalData, *, batch_size: int | None = None) -> dict[str, float]:
        """The scores of the mean prediction, under the names that `SplitModel.evaluate` has.

        `TASK/loss` is the task's loss of the mean prediction, averaged over the rows that have the label by their
        weights: -log of the mean probability of the row's class, or the squared error of the mean value. It is at most
        the mean of the members' losses. `loss` is the sum over tasks of weight * `TASK/loss`, and `TASK/METRIC` the
        metric of the mean prediction.

        Raises:
            DataError, ModelError: as `SplitModel.evaluate`.
        """
        first = self.models[0]
        first._check_data(data)
        rows = party_data(data, {}, first.tasks)[first.label_party]
        return prediction_scores(first.tasks, self._logits(data, batch_size), rows)

    def save(self, path: str | Path) -> None:
        """Write `path/PARTY/member-000` and so on: each party's part of every member, and nothing of another's.

        Each of these folders is replaced in one instant, as by `SplitModel.save`. What a save of several leaves when it
        is cut short is all of the old ensemble, all of the new one, or what `load` refuses.
        """
        path, facts = Path(path), new_facts(len(self.models))
        names = [member_name(number) for number in range(len(self.models))]
        for name, model in zip(names, self.models, strict=True):
            model._consortium.save(path, model.epoch, name, facts)
        for party in self.models[0]._consortium.names:
            remove_others(path, party, names)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        optimizers: Mapping[str, optax.GradientTransformation] | None = None,
        fuse_optimizer: optax.GradientTransformation | None = None,
        networks: Mapping[str, nn.Module] | None = None,
        fuse: nn.Module | None = None,
        protect: Facing | Protection | None = None,
        sends: Mapping[str, Protection] | None = None,
        balance: str | Balance | None = None,
        placement: str | Callable[[], Placement] = "local",
    ) -> "Ensemble":
        """Read a saved ensemble back.

        Args:
            optimizers, fuse_optimizer, networks, fuse, protect, sends, balance: for every member, as in
                `SplitModel.load`.
            placement: the name of a placement, or a function that makes one, such as `lambda: Local(Encoded())`: each
                member has its own.

        Raises:
            SaveError: no member, one that a party lacks, or one of another save than the rest; or, naming the member,
                what `SplitModel.load` refuses.
            ModelError: an argument does not fit the members.
        """
        if not isinstance(placement, str) and not callable(placement):
            wanted = "a name or a function that makes a placement, as each member has its own"
            raise ModelError(field="placement", seen=repr(placement), wanted=wanted)
        given = optimizers, fuse_optimizer, networks, fuse, protect, sends, balance
        models, cards = [], {}
        for name in find_members(Path(path)):
            placed = placement if isinstance(placement, str) else placement()
            try:
                model, cards[name] = SplitModel._read(Path(path), placed, *given, within=name)
            except SaveError as error:
                field = f"{name}: {error.field}"
                raise SaveError(party=error.party, field=field, seen=error.seen, wanted=error.wanted) from error
            models.append(model)
        check_facts(cards, models[0].label_party)
        return cls(models)

    def _logits(self, data: VerticalData, batch_size: int | None) -> tuple[Any, ...]:
        """The logits `[N, K_t]` of each task whose links are the means of the members' links."""
        members = zip(*(model._logits(data, batch_size) for model in self.models), strict=True)
        return tuple(task.pooled(jnp.stack(own)) for task, own in zip(self.models[0].tasks, members, strict=True))


def _agreed(model: SplitModel) -> dict[str, Any]:
    """What is the same in every member."""
    columns = {name: sorted(spec.name for spec in party.columns) for name, party in sorted(model.parties.items())}
    return {"label_party": model.label_party, "parties": [*columns], "tasks": tuple(model.tasks), "columns": columns}


def _check(models: Any) -> None:
    """Raises ModelError as `Ensemble`."""
    if not isinstance(models, Sequence) or not models:
        seen = "none" if isinstance(models, Sequence) else type(models).__name__
        raise ModelError(field="models", seen=seen, wanted="a list of at least one SplitModel")
    for number, model in enumerate(models):
        if not isinstance(model, SplitModel):
            raise ModelError(field=f"member {number}", seen=type(model).__name__, wanted="a SplitModel")
        if not model._consortium.placement.parties:
            seen, wanted = "parties on devices, where predictions stay", "parties in this process"
            raise ModelError(field=f"member {number}, placement", seen=seen, wanted=wanted)
        if not model._consortium.fitted:
            raise ModelError(field=f"member {number}", seen="one that was never fitted", wanted="fit first")
        agreed = _agreed(models[0])
        for field, own in _agreed(model).items():
            if own != agreed[field]:
                wanted = f"{agreed[field]!r}, as the first member has"
                raise ModelError(field=f"member {number}, {field}", seen=repr(own), wanted=wanted)
