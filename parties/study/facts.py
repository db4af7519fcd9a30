"""What a study says, in values that TOML has; and objects of these values, each refused by its key."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn

from mmoe_jax.describe import NETWORKS, network_from_dict, network_to_dict, task_to_dict
from mmoe_jax.errors import ColumnError, NetworkError
from mmoe_jax.features import KINDS, ColumnSpec, column_from_dict
from mmoe_jax.optimizers import NamedOptimizer, optimizer
from mmoe_jax.tasks import Task
from parties.errors import ModelError, PartyError, StudyError
from parties.model.assembly import Party
from parties.model.protection import PROTECTIONS, Facing, public_protection
from parties.privacy.heuristics import HEURISTICS, Protection, chain

FORMAT = 1
SECTIONS = ("rows", "training", "meeting")
KEYS = ("format", "label_party", "seed", "balance", *SECTIONS, "protect", "fuse", "fuse_optimizer", "tasks", "parties")
NONE = "none"  # how a text says None where an absent key would be another default


def to_facts(study: Any) -> dict[str, Any]:
    """All facts of a `Study`, by key.

    Raises:
        StudyError: one of them is code; names its key.
    """
    facts: dict[str, Any] = {"format": FORMAT, "label_party": study.label_party, "seed": study.seed}
    if not isinstance(study.balance, str):
        raise StudyError(field="balance", seen="a function", wanted="the name of a balance")
    facts["balance"] = study.balance
    facts |= {section: _said(dataclasses.asdict(getattr(study, section))) for section in SECTIONS}
    if study.protect is not None:
        facts["protect"] = _protection_facts(study.protect, "protect")
    facts["fuse"] = _network_facts(study.fuse, "fuse")
    facts["fuse_optimizer"] = _optimizer_facts(study.fuse_optimizer, "fuse_optimizer")
    facts["tasks"] = [_task_facts(task) for task in study.tasks]
    facts["parties"] = {name: _party_facts(party, f"parties.{name}") for name, party in study.parties.items()}
    return facts


def read_facts(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a `Study`, by name; each of `SECTIONS` is a dict of arguments.

    Raises:
        StudyError: an unknown or absent key, or a value that cannot be used; names the key.
    """
    _check_keys(tables, "", KEYS, needed=("format", "label_party", "fuse", "fuse_optimizer", "tasks", "parties"))
    if tables["format"] != FORMAT or type(tables["format"]) is not int:
        raise StudyError(field="format", seen=repr(tables["format"])[:200], wanted=str(FORMAT))
    arguments: dict[str, Any] = {name: tables[name] for name in ("label_party", "seed", "balance") if name in tables}
    arguments |= {section: _table(tables.get(section, {}), section) for section in SECTIONS}
    if "protect" in tables:
        arguments["protect"] = _read_protection(tables["protect"], "protect", (*PROTECTIONS, *HEURISTICS, "chain"))
    arguments["fuse"] = _read_network(tables["fuse"], "fuse")
    arguments["fuse_optimizer"] = _read_optimizer(tables["fuse_optimizer"], "fuse_optimizer")
    arguments["tasks"] = [_read_task(of, key) for of, key in _listed(tables["tasks"], "tasks")]
    parties = _table(tables["parties"], "parties").items()
    arguments["parties"] = {name: _read_party(of, f"parties.{name}") for name, of in parties}
    return arguments


def _party_facts(party: Party, key: str) -> dict[str, Any]:
    facts = {"base": _network_facts(party.base, f"{key}.base"), "sparse": party.sparse}
    facts["optimizer"] = _optimizer_facts(party.optimizer, f"{key}.optimizer")
    if party.sends is not None:
        facts["sends"] = _protection_facts(party.sends, f"{key}.sends")
    columns = [_column_facts(spec, f"{key}.columns[{i}]") for i, spec in enumerate(party.columns)]
    return facts | {"columns": columns}


def _read_party(given: Any, key: str) -> Party:
    table = _table(given, key)
    _check_keys(table, key, ("base", "sparse", "optimizer", "sends", "columns"), ("base", "optimizer", "columns"))
    columns = [_read_column(of, at) for of, at in _listed(table["columns"], f"{key}.columns")]
    base, own = _read_network(table["base"], f"{key}.base"), _read_optimizer(table["optimizer"], f"{key}.optimizer")
    if type(sparse := table.get("sparse", False)) is not bool:
        raise StudyError(field=f"{key}.sparse", seen=repr(sparse)[:200], wanted="true or false")
    sends = None
    if "sends" in table:
        sends = _read_protection(table["sends"], f"{key}.sends", (*HEURISTICS, "chain"))
    assert sends is None or isinstance(sends, Protection)
    return Party(columns, base, own, sparse, sends)


def _column_facts(spec: ColumnSpec, key: str) -> dict[str, Any]:
    if KINDS.get(type(spec).__name__) is not type(spec):
        raise StudyError(field=key, seen=f"a {type(spec).__name__}", wanted=f"one of {sorted(KINDS)}")
    return _said(spec.to_dict())


def _read_column(given: Any, key: str) -> ColumnSpec:
    table = _table(given, key)
    kind = _kind(table, "kind", KINDS, key)
    with _at(key):
        return column_from_dict(table | {"kind": kind.__name__, **_filled(kind, table, "kind", key)})


def _task_facts(task: Task) -> dict[str, Any]:
    facts = task_to_dict(task)
    return {name: value for name, value in facts.items() if name != "classes" or task.kind == "multiclass"}


def _read_task(given: Any, key: str) -> Task:
    table = dict(_table(given, key))
    make: Callable[..., Task] = _kind(
        table, "kind", {"binary": Task.binary, "multiclass": Task.multiclass, "regression": Task.regression}, key
    )
    del table["kind"]
    known = {"name", "weight", "missing", "metrics"} | ({"classes"} if make.__name__ == "multiclass" else set())
    _check_keys(table, key, sorted(known), needed=sorted(known & {"name", "classes"}))
    with _at(key):
        return make(**table)


def _network_facts(network: nn.Module, key: str) -> dict[str, Any]:
    described = network_to_dict(network)
    if described.get("custom", False):
        seen = f"a {type(network).__name__} of your own, or one with a function in it"
        raise StudyError(field=key, seen=seen, wanted=f"one of {sorted(NETWORKS)} without functions")
    defaults = {own.name: own.default for own in dataclasses.fields(network)}
    kept = {k: NONE if v is None and defaults.get(k) is not None else v for k, v in described.items()}
    return _said(kept)


def _read_network(given: Any, key: str) -> nn.Module:
    table = _table(given, key)
    kind = _kind(table, "class", NETWORKS, key)
    filled = {name: None if value == NONE else value for name, value in _filled(kind, table, "class", key).items()}
    with _at(key):
        filled["param_dtype"] = jnp.dtype(filled["param_dtype"]).name
        return network_from_dict(filled | {"class": kind.__name__})


def _optimizer_facts(given: optax.GradientTransformation, key: str) -> dict[str, Any]:
    if not isinstance(given, NamedOptimizer):
        wanted = 'one that has a name: mmoe_jax.optimizer("adam", 1e-3)'
        raise StudyError(field=key, seen="an optimiser of functions", wanted=wanted)
    return {"name": given.name, **given.arguments}


def _read_optimizer(given: Any, key: str) -> NamedOptimizer:
    table = _table(given, key)
    for name in ("name", "learning_rate"):
        if name not in table:
            raise StudyError(field=f"{key}.{name}", seen="no such key", wanted="a value")
    with _at(key):
        return optimizer(**table)


def _protection_facts(protect: Facing | Protection, key: str) -> dict[str, Any]:
    if isinstance(protect, Facing):
        public = public_protection(protect)
        heads = {name: _network_facts(head, f"{key}.heads.{name}") for name, head in protect.heads.items()}
        return public | {"heads": heads, "optimizer": _optimizer_facts(protect.optimizer, f"{key}.optimizer")}
    if protect.facts is None:
        wanted = f"one that is made of {sorted(HEURISTICS)}"
        raise StudyError(field=key, seen=f"{protect.name!r}, a protection of functions", wanted=wanted)
    return _said(protect.facts)


def _read_protection(given: Any, key: str, kinds: Sequence[str]) -> Facing | Protection:
    table = dict(_table(given, key))
    kind = _kind(table, "kind", {name: name for name in kinds}, key)
    del table["kind"]
    if kind == "chain":
        _check_keys(table, key, ("of",), ("of",))
        parts = [_read_protection(of, at, (*HEURISTICS, "chain")) for of, at in _listed(table["of"], f"{key}.of")]
        return chain(*(part for part in parts if isinstance(part, Protection)))
    if kind in HEURISTICS:
        with _at(key):
            return HEURISTICS[kind](**table)
    make = PROTECTIONS[kind]
    _check_keys(table, key, [own.name for own in dataclasses.fields(make)])
    if "heads" in table:
        heads = _table(table["heads"], f"{key}.heads").items()
        table["heads"] = {name: _read_network(head, f"{key}.heads.{name}") for name, head in heads}
    if "optimizer" in table:
        table["optimizer"] = _read_optimizer(table["optimizer"], f"{key}.optimizer")
    return make(**table)


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are not None, with lists in the place of tuples."""
    return {name: _listing(value) for name, value in facts.items() if value is not None}


def _listing(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _said(value)
    return [_listing(item) for item in value] if isinstance(value, tuple | list) else value


def _table(given: Any, key: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise StudyError(field=key, seen=repr(given)[:200], wanted="a table")
    return dict(given)


def _listed(given: Any, key: str) -> list[tuple[Any, str]]:
    """The items of a list, each with its key."""
    if not isinstance(given, list):
        raise StudyError(field=key, seen=repr(given)[:200], wanted="a list of tables")
    return [(item, f"{key}[{i}]") for i, item in enumerate(given)]


def _kind(table: Mapping[str, Any], name: str, kinds: Mapping[str, Any], key: str) -> Any:
    """What the table's value of that name stands for."""
    if not isinstance(kind := table.get(name), str) or kind not in kinds:
        seen = "no such key" if kind is None else repr(kind)[:200]
        raise StudyError(field=f"{key}.{name}", seen=seen, wanted=f"one of {sorted(kinds)}")
    return kinds[kind]


def _check_keys(table: Mapping[str, Any], key: str, known: Sequence[str], needed: Sequence[str] = ()) -> None:
    at = f"{key}." if key else ""
    for name in table:
        if name not in known:
            raise StudyError(field=f"{at}{name}", seen="an unknown key", wanted=f"one of {list(known)}")
    for name in needed:
        if name not in table:
            raise StudyError(field=f"{at}{name}", seen="no such key", wanted="a value")


def _filled(kind: Any, table: Mapping[str, Any], name: str, key: str) -> dict[str, Any]:
    """The table's values, but that of `name`, and the defaults of the dataclass's other fields."""
    own = [field for field in dataclasses.fields(kind) if field.name not in ("parent", "name") or name == "kind"]
    needed = [field.name for field in own if field.default is field.default_factory is dataclasses.MISSING]
    _check_keys(table, key, [name, *(field.name for field in own)], needed)
    return {field.name: table.get(field.name, field.default) for field in own}


@contextlib.contextmanager
def _at(key: str) -> Iterator[None]:
    """Turn what a constructor refuses inside the block into an error that names the key."""
    try:
        yield
    except (NetworkError, ModelError) as error:
        raise StudyError(field=f"{key}.{error.field}", seen=error.seen, wanted=error.wanted) from error
    except ColumnError as error:
        raise StudyError(field=key, seen=error.seen, wanted=error.wanted) from error
    except PartyError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise StudyError(field=key, seen=str(error)[:200], wanted="values of the right kind") from error
