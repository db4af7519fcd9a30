"""What a study says, in values that TOML has; and objects of these values, each refused by its key."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax
from flax import linen as nn

from mmoe_jax.describe import NETWORKS, network_from_dict, network_to_dict, task_to_dict
from mmoe_jax.features import KINDS, ColumnSpec, column_from_dict
from mmoe_jax.fuse import TowerFuse
from mmoe_jax.optimizers import NamedOptimizer, optimizer
from mmoe_jax.tasks import Task
from parties.model.assembly import Party
from parties.model.protection import PROTECTIONS, Facing
from parties.privacy.heuristics import HEURISTICS, Protection, chain
from parties.protocol.messages import DTYPES
from parties.study.sections import SECTIONS
from parties.study.tables import at, check_values, join, listed, named, refusal, table

FORMAT = 1
NEEDED = ("format", "label_party", "fuse", "fuse_optimizer", "tasks", "parties")
KEYS = ("format", "label_party", "seed", "balance", *SECTIONS, "protect", "fuse", "fuse_optimizer", "tasks", "parties")
PARTY = tuple(own.name for own in dataclasses.fields(Party))
NONE = "none"  # how a text says None where an absent key would be another default

FUSES = tuple(name for name, kind in NETWORKS.items() if issubclass(kind, TowerFuse))
BASES, HEADS = ("MMoEBase",), (*FUSES, "Head")
FLAGS = ("strip", "standardise")  # of columns
TASKS: dict[str, Callable[..., Task]] = {
    "binary": Task.binary,
    "multiclass": Task.multiclass,
    "regression": Task.regression,
}
MAX_CLASSES = 1_000_000  # of which a number of classes makes a list


def to_facts(study: Any) -> dict[str, Any]:
    """All facts of a `Study`, by key.

    Raises:
        StudyError: one of them is code, or a value that a study may not say; names its key.
    """
    if not isinstance(study.balance, str):
        raise refusal("balance", "a function", "the name of a balance")
    facts: dict[str, Any] = {"format": FORMAT}
    facts |= {name: getattr(study, name) for name in ("label_party", "seed", "balance")}
    facts |= {section: _said(dataclasses.asdict(getattr(study, section))) for section in SECTIONS}
    if study.protect is not None:
        facts["protect"] = _protection_facts(study.protect, "protect")
    fuse = _network_facts(study.fuse, "fuse", FUSES)
    facts["fuse"] = {name: value for name, value in fuse.items() if name != "output_sizes"}  # which the tasks say
    facts["fuse_optimizer"] = _optimizer_facts(study.fuse_optimizer, "fuse_optimizer")
    facts["tasks"] = [_task_facts(task, f"tasks[{i}]") for i, task in enumerate(study.tasks)]
    facts["parties"] = {name: _party_facts(party, join("parties", name)) for name, party in study.parties.items()}
    check_values(facts)
    read_facts(facts)  # raises for what Python has let pass and a text may not say
    return facts


def read_facts(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a `Study`, by name.

    Raises:
        StudyError: an unknown or absent key, or a value that cannot be used; names the key.
    """
    table(tables, "", KEYS, NEEDED)
    if tables["format"] != FORMAT or type(tables["format"]) is not int:
        raise refusal("format", repr(tables["format"]), str(FORMAT))
    arguments: dict[str, Any] = {name: tables[name] for name in ("label_party", "seed", "balance") if name in tables}
    for name, section in SECTIONS.items():
        known = [own.name for own in dataclasses.fields(section)]
        arguments[name] = section(**table(tables.get(name, {}), name, known))
    if "protect" in tables:
        arguments["protect"] = _read_protection(tables["protect"], "protect", (*PROTECTIONS, *HEURISTICS, "chain"))
    arguments["tasks"] = tasks = [_read_task(of, key) for of, key in listed(tables["tasks"], "tasks")]
    fuse = _read_network(tables["fuse"], "fuse", FUSES)
    with at("fuse"):
        arguments["fuse"] = fuse.bind_tasks(tasks)
    arguments["fuse_optimizer"] = _read_optimizer(tables["fuse_optimizer"], "fuse_optimizer")
    parties = table(tables["parties"], "parties").items()
    arguments["parties"] = {name: _read_party(of, join("parties", name)) for name, of in parties}
    return arguments


def _party_facts(party: Party, key: str) -> dict[str, Any]:
    if type(party) is not Party:
        raise refusal(key, f"a {type(party).__name__}", "a Party")
    facts = {"sparse": party.sparse, "base": _network_facts(party.base, f"{key}.base", BASES)}
    facts["optimizer"] = _optimizer_facts(party.optimizer, f"{key}.optimizer")
    if party.sends is not None:
        facts["sends"] = _protection_facts(party.sends, f"{key}.sends")
    columns = [_column_facts(spec, f"{key}.columns[{i}]") for i, spec in enumerate(party.columns)]
    return facts | {"columns": columns}


def _read_party(given: Any, key: str) -> Party:
    read = table(given, key, PARTY, ("columns", "base", "optimizer"))
    read["columns"] = [_read_column(of, where) for of, where in listed(read["columns"], f"{key}.columns")]
    read["base"] = _read_network(read["base"], f"{key}.base", BASES)
    read["optimizer"] = _read_optimizer(read["optimizer"], f"{key}.optimizer")
    if type(sparse := read.get("sparse", False)) is not bool:
        raise refusal(f"{key}.sparse", repr(sparse), "true or false")
    if "sends" in read:
        read["sends"] = _read_protection(read["sends"], f"{key}.sends", (*HEURISTICS, "chain"))
    return Party(**read)


def _column_facts(spec: ColumnSpec, key: str) -> dict[str, Any]:
    if KINDS.get(type(spec).__name__) is not type(spec):
        raise refusal(key, f"a {type(spec).__name__}", f"one of {sorted(KINDS)}")
    return _said(spec.to_dict())


def _read_column(given: Any, key: str) -> ColumnSpec:
    kind = named(given, key, "kind", KINDS)
    filled = _filled(given, key, "kind", dataclasses.fields(kind))
    for name, value in filled.items():  # in Python a flag is a number, too
        values = value if isinstance(value, list) else [value]
        if name not in FLAGS and any(isinstance(each, bool) for each in values):
            raise refusal(f"{key}.{name}", repr(value), "no flag")
    with at(key):
        return column_from_dict({"kind": kind.__name__, **filled})


def _task_facts(task: Task, key: str) -> dict[str, Any]:
    if type(task) is not Task:
        raise refusal(key, f"a {type(task).__name__}", "a Task")
    with at(key):
        facts = task_to_dict(task)
    return {name: value for name, value in facts.items() if name != "classes" or task.kind == "multiclass"}


def _read_task(given: Any, key: str) -> Task:
    make = named(given, key, "kind", TASKS)
    needed = ["name", "classes"] if given["kind"] == "multiclass" else ["name"]
    read = table(given, key, ("kind", *needed, "weight", "missing", "metrics"), needed)
    if type(classes := read.get("classes")) is int and classes > MAX_CLASSES:
        raise refusal(f"{key}.classes", str(classes), f"at most {MAX_CLASSES}")
    for name in ("classes", "metrics"):
        if name in read and type(read[name]) is not int:
            listed(read[name], f"{key}.{name}")
    with at(key):
        return make(**{name: value for name, value in read.items() if name != "kind"})


def _network_facts(network: nn.Module, key: str, kinds: Sequence[str]) -> dict[str, Any]:
    with at(key):
        described = network_to_dict(network)
    if described.get("custom", False) or described["class"] not in kinds:
        seen = f"a {type(network).__name__} of your own, or one with a function in it"
        raise refusal(key, seen, f"one of {list(kinds)} without functions")
    defaults = {own.name: own.default for own in dataclasses.fields(network)}
    return _said({k: NONE if v is None and defaults.get(k) is not None else v for k, v in described.items()})


def _read_network(given: Any, key: str, kinds: Sequence[str]) -> Any:
    kind = named(given, key, "class", {name: NETWORKS[name] for name in kinds})
    own = [attribute for attribute in dataclasses.fields(kind) if attribute.name not in ("parent", "name")]
    filled = _filled(given, key, "class", own)
    if "param_dtype" not in given:
        filled["param_dtype"] = "float32"
    elif filled["param_dtype"] not in DTYPES:
        raise refusal(f"{key}.param_dtype", repr(filled["param_dtype"]), f"one of {DTYPES}")
    with at(key):
        return network_from_dict({n: None if v == NONE else v for n, v in filled.items()} | {"class": kind.__name__})


def _optimizer_facts(given: optax.GradientTransformation, key: str) -> dict[str, Any]:
    if not isinstance(given, NamedOptimizer):
        raise refusal(key, "an optimiser of functions", 'one that has a name: mmoe_jax.optimizer("adam", 1e-3)')
    return {"name": given.name, **given.arguments}


def _read_optimizer(given: Any, key: str) -> NamedOptimizer:
    read = table(given, key, needed=("name", "learning_rate"))
    with at(key):
        return optimizer(**read)


def _protection_facts(protect: Facing | Protection, key: str) -> dict[str, Any]:
    if isinstance(protect, Protection):
        if protect.facts is None:
            raise refusal(key, f"{protect.name!r}, a protection of functions", f"one that is made of {[*HEURISTICS]}")
        return _said(protect.facts)
    if type(protect) is not PROTECTIONS.get(protect.kind):
        raise refusal(key, f"a {type(protect).__name__}", f"one of {[kind.__name__ for kind in PROTECTIONS.values()]}")
    facts, given = protect.describe(), protect.epsilon
    facts["epsilon"] = {t: float(e) for t, e in given.items()} if isinstance(given, Mapping) else float(given)
    heads = protect.heads.items()
    facts["heads"] = {name: _network_facts(head, join(f"{key}.heads", name), HEADS) for name, head in heads}
    return facts | {"optimizer": _optimizer_facts(protect.optimizer, f"{key}.optimizer")}


def _read_protection(given: Any, key: str, kinds: Sequence[str]) -> Any:
    kind = named(given, key, "kind", {name: name for name in kinds})
    read = {name: value for name, value in given.items() if name != "kind"}
    if kind == "chain":
        table(read, key, ("of",), ("of",))
        return chain(
            *(_read_protection(of, where, (*HEURISTICS, "chain")) for of, where in listed(read["of"], f"{key}.of"))
        )
    make: Callable[..., Any] = PROTECTIONS[kind] if kind in PROTECTIONS else HEURISTICS[kind]
    parameters = inspect.signature(make).parameters
    table(read, key, list(parameters), [name for name, own in parameters.items() if own.default is own.empty])
    if "only" in read:
        listed(read["only"], f"{key}.only")
    if "heads" in read:
        heads = table(read["heads"], f"{key}.heads").items()
        read["heads"] = {name: _read_network(head, join(f"{key}.heads", name), HEADS) for name, head in heads}
    if "optimizer" in read:
        read["optimizer"] = _read_optimizer(read["optimizer"], f"{key}.optimizer")
    with at(key):
        return make(**read)


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are not None, with lists in the place of tuples."""
    return {name: _listing(value) for name, value in facts.items() if value is not None}


def _listing(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _said(value)
    return [_listing(item) for item in value] if isinstance(value, tuple | list) else value


def _filled(given: Any, key: str, name: str, own: Sequence[dataclasses.Field]) -> dict[str, Any]:
    """The table's values, but that of `name`, and the defaults of other fields of a dataclass."""
    needed = [field.name for field in own if field.default is field.default_factory is dataclasses.MISSING]
    read = table(given, key, [name, *(field.name for field in own)], needed)
    return {field.name: read.get(field.name, field.default) for field in own}
