"""An account: what one party knows of a run, for a report of its own, in values that JSON has.

It holds no cell, label, id or parameter, and of other parties only what all parties know. It lies in a file of the
party's own, so that the report can be written by a later process.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from mmoe_jax.tasks import Task
from parties.errors import ModelError, SaveError
from parties.model.assembly import Party
from parties.model.protection import Facing, OneShot
from parties.placement.contract import Placement
from parties.privacy.guarantee import Guarantee, spent
from parties.privacy.heuristics import Protection
from parties.saving.folder import write_file

FORMAT = 2
VERSIONS = ("mmoe-jax", "jax", "flax", "optax", "numpy", "pandas", "secretflow")
ANEW = "where it is gone, `mmoe-jax resume` writes one, with what can still be known"
Account = dict[str, Any]


class Trained(Protocol):
    """What an account asks of the model."""

    parties: Mapping[str, Party]
    label_party: str
    tasks: Sequence[Task]
    seed: int
    protect: Facing | Protection | None
    epoch: int
    history: dict[str, list[float]]
    stopped: str | None

    @property
    def guarantee(self) -> Guarantee | None: ...


def accounts(
    model: Trained,
    placement: Placement,
    answers: Mapping[str, Mapping[str, Any]],
    training: Mapping[str, Any],
    audited: Sequence[Mapping[str, Any]] | None,
    meeting: Mapping[str, Any] | None,
) -> dict[str, Account]:
    """Party -> its account, of the parties that answered.

    Args:
        answers: what each `Participant.account` answered; {} of a party whose answer is for another process.
        training: facts of the latest `fit`.
        audited: lines of the latest audit, of whichever parties; None if there was none.
        meeting: how the parties met, as the script that let them meet knows; None if it does not say.
    """
    everybody = list(dict.fromkeys([*model.parties, model.label_party]))
    common = {
        "format": FORMAT,
        "label_party": model.label_party,
        "parties": everybody,
        "holders": list(model.parties),
        "tasks": [{"name": task.name, "kind": task.kind} for task in model.tasks],
        "epochs": model.epoch,
        "stopped": model.stopped,
        "training": dict(training),
        "placement": type(placement).__name__.lower(),
        "apart": not placement.abilities.alone,
        "meeting": None if meeting is None else dict(meeting),
        "protect": _protection(model),
        "seed": model.seed,
        "versions": versions(),
        "written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    told = not placement.abilities.alone  # then a history has what its own process was told, and no more
    made = {}
    for party, answer in answers.items():
        if not answer:
            continue
        whole = told or party == model.label_party
        columns = [spec.name for spec in model.parties[party].columns] if party in model.parties else []
        own = model.parties[party].sends if party in model.parties else None
        lines = None if audited is None else _lines([line for line in audited if line["party"] == party])
        made[party] = json_values(
            common
            | {
                "party": party,
                "columns": columns,
                "noise": None if own is None else own.name,
                "history": {n: v for n, v in model.history.items() if whole or n == "seconds"},
                "audit": lines,
                "beside": {},
            }
            | dict(answer)
        )
    return made


def with_beside(account: Account, beside: Mapping[str, Mapping[str, float]]) -> Account:
    """The label party's account with scores of other models; any other's as it is, as it may not know them.

    Args:
        beside: name of a model -> its scores, as `SplitModel.evaluate` gives them.

    Raises:
        ModelError: anything else.
    """
    good = isinstance(beside, Mapping) and all(
        isinstance(name, str) and isinstance(scores, Mapping) and all(map(_is_score, scores.items()))
        for name, scores in beside.items()
    )
    if not good:
        seen = repr(beside)[:200]
        raise ModelError(field="beside", seen=seen, wanted='{"alone": scores}, as `evaluate` gives scores')
    if account["party"] != account["label_party"]:
        return account
    return account | {"beside": json_values({name: dict(scores) for name, scores in beside.items()})}


def write_account(file: Path, account: Account) -> None:
    """Write the account to a file of the party's own, for its owner alone to read; make its folder.

    Raises:
        SaveError: it cannot be written; an older one stays as it was.
    """
    text = json.dumps({"account": account, "digest": _digest(account)}, indent=1) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, text.encode())
    except OSError as error:
        seen = error.strerror or type(error).__name__
        wanted = "a file that can be written"
        raise SaveError(party=account["party"], field=f"file {str(file)!r}", seen=seen, wanted=wanted) from error


def read_account(file: Path, party: str) -> Account:
    """Read the party's account back.

    Raises:
        SaveError: no such file; one that is damaged, of another format version, or another party's.
    """

    def refused(seen: str, wanted: str) -> SaveError:
        return SaveError(party=party, field=f"file {str(file)!r}", seen=seen, wanted=wanted)

    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        seen = error.strerror or type(error).__name__
        raise refused(seen, "the account that `mmoe-jax train` writes") from error
    except (ValueError, RecursionError) as error:
        raise refused(str(error)[:200], f"JSON as it was written; {ANEW}") from error
    account = read.get("account") if isinstance(read, dict) else None
    if not isinstance(account, dict) or read.get("digest") != _digest(account):
        raise refused("another digest than that of what it holds", f"the file as it was written; {ANEW}")
    for field, wanted in (("format", FORMAT), ("party", party)):
        if account.get(field) != wanted:
            raise refused(f"{field} {account.get(field)!r}"[:200], f"{field} {wanted!r}; {ANEW}")
    return account


def versions() -> dict[str, str]:
    """Distribution -> its version, of those that are installed; and Python's."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def json_values(value: Any) -> Any:
    """The value with lists in the place of tuples, and None in that of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(name): json_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _digest(account: Account) -> str:
    return hashlib.sha256(json.dumps(account, sort_keys=True).encode()).hexdigest()


def _is_score(item: tuple[Any, Any]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, int | float) and not isinstance(value, bool)


def _protection(model: Trained) -> dict[str, Any] | None:
    """What protects the labels, what that proves, and the epsilon; None without protection."""
    guarantee, protect = model.guarantee, model.protect
    if protect is None or guarantee is None:
        return None
    kind = protect.kind if isinstance(protect, Facing) else "heuristic"
    said = {"kind": kind, "one_shot": isinstance(protect, OneShot), "name": getattr(protect, "name", kind)}
    said |= {name: getattr(guarantee, name) for name in ("unit", "adjacency", "proved", "covers")}
    said["each"] = {task: event.epsilon for task, event in guarantee.event.items()}
    try:
        found = spent(guarantee)
    except ModelError:  # the accountant is not installed; what each label was randomised with is known without it
        found = None
    return said | {"spent": None if found is None else {"tasks": found.tasks, "row": found.row}}


def _lines(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of an audit without the values, or the numbers, of the columns that they asked for.

    A line's `target` is a task or a column, `asked` "label", "value" or "above", and `which` tells the values of one
    column apart, by their place in the table.
    """
    of_column: dict[str, list[str]] = {}
    said = []
    for line in lines:
        asked, column = str(line["target"]), line["column"]
        values = of_column.setdefault(column or asked, [])
        if asked not in values:
            values.append(asked)
        kind = "label" if not column else "above" if asked.startswith(f"{column}>=") else "value"
        told = {name: value for name, value in line.items() if name != "column"}
        said.append(told | {"target": column or asked, "asked": kind, "which": values.index(asked) + 1})
    return said
