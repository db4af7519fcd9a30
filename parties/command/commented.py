"""A study as text with comments, for people who will edit it."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import tomli_w

from parties.command.guess import Guess
from parties.study.facts import FORMAT
from parties.study.sections import Meeting, Rows, Training
from parties.study.tables import join

TITLE = """\
# A study: what all parties agree on before any reads a row. Every party needs this very file: when they meet, they
# compare it key by key. It is public, so write no cell of a table here. A party's files and addresses are in its own
# file. Keys that are left out have the values of the Python arguments of the same names.
"""
NOTES = {
    "label_party": "who holds the labels, and the fuse network",
    "seed": "decides parameters and the order of rows",
    "balance": 'how tasks of unlike scales share the bases: "sum", "norm", "log", "mgda" or "pcgrad"',
    "rows.id": "the column of row ids in every party's files",
    "rows.alignment": '"same": all files have the same ids in one order; "psi": private set intersection finds them',
    "rows.validation": 'what is scored after each epoch: "none", "file" (files.validation), or a share of the rows',
    "tasks.classes": "write them here, in the order of the logits; all parties read them",
    "tasks.missing": "rows without this label train the other tasks",
    "training.batch_size": "rows per round",
    "training.in_flight": "rounds whose messages are under way at once; `mmoe-jax check` says how many help",
    "training.nonfinite": 'a round with a NaN: "raise", or "skip_round"',
    "training.audit": "whether each party writes what its messages gave away; it keeps them all in memory",
    "meeting.tls": "every party proves who it is, by certificates of `mmoe-jax keys`",
    "meeting.transport": '"brpc_link" or "grpc"',
    "meeting.deadline": "seconds for which a party may be silent: more than compiling, or reading its files, takes",
    "meeting.scores": 'who hears the scores: "label", the label party alone, or "all"',
}
PROTECT = """
# Uncomment to keep the labels at home: all that others see is then epsilon-label-differentially private.
# [protect]
# kind = "facing"
# epsilon = 1.0
"""
NO_TASKS = """
# What is learned: one [[tasks]] per label column of the label party.
# [[tasks]]
# name = "bought"
# kind = "binary"  # or "multiclass" with classes = ["a", "b"], or "regression"
"""
FUSE = {"class": "MMoEFuse", "num_experts": 3, "expert_units_size": [32, 16], "tower_units_size": [12]}
BASE = {"class": "MMoEBase", "dnn_units_size": [32], "embedding_dim": 8}
ADAM = {"name": "adam", "learning_rate": 0.001}


def study_text(label_party: str, tasks: Sequence[Mapping[str, Any]], **sections: Rows | Training | Meeting) -> str:
    """A study without parties, which `party_text` adds.

    Args:
        tasks: as a study says them; where there are none, a comment asks for them.
        sections: those of other than the default values, by name.
    """
    given: dict[str, Any] = {"rows": Rows(), "training": Training(), "meeting": Meeting()} | sections
    top = {"format": FORMAT, "label_party": label_party, "seed": 0, "balance": "sum"}
    lines = [TITLE, *_values("", top)]
    for name, section in given.items():
        lines += [f"\n[{name}]", *_values(name, {key: v for key, v in vars(section).items() if v is not None})]
    lines += [PROTECT, "[fuse]", *_values("fuse", FUSE), "\n[fuse_optimizer]", *_values("fuse_optimizer", ADAM)]
    for task in tasks:
        lines += ["\n[[tasks]]", *_values("tasks", task)]
    return "\n".join([*lines, *([] if tasks else [NO_TASKS])]) + "\n"


def party_text(party: str, guesses: Sequence[Guess], without: Collection[str] = ()) -> str:
    """A party's part of a study: its columns as they were guessed, each with a comment that says why.

    Args:
        without: columns that are no features, such as the ids and the labels.
    """
    key = join("parties", party)
    lines = [f"\n[{key}]", f"base = {inline(BASE)}", f"optimizer = {inline(ADAM)}", "columns = ["]
    for guess in guesses:
        if guess.name in without:
            continue
        if guess.spec is None:
            lines.append(f"    # {json.dumps(guess.name, ensure_ascii=False)} is left out: {guess.why}")
        else:
            said = {name: value for name, value in guess.spec.items() if value is not None}
            lines.append(f"    {inline(said)},{_note(guess.why)}")
    return "\n".join([*lines, "]"]) + "\n"


def inline(value: Any) -> str:
    """The value as TOML on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{join('', name)} = {inline(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    return tomli_w.dumps({"_": value}).removeprefix("_ = ").removesuffix("\n")


def _values(section: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        note = NOTES.get(join(section, name))
        yield f"{name} = {inline(value)}{_note(note)}"


def _note(note: str | None) -> str:
    return f"  # {note}" if note else ""
