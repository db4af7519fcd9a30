"""The page of a report: one HTML file that loads nothing, of one party's account."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from parties.errors import ModelError
from parties.reporting import pictures
from parties.reporting.account import Account

TEMPLATE = "page.html"
CONTROLS = ("own_columns", "planted")  # lines of an audit that say whether the others hold
PRIORS = ("own", "all", "sent")  # of an audit, the one that says most to the reader first
BEYOND = {  # what an audit of the label party's messages counts by each prior, and one of another party's
    True: {
        "own": "What is new to the reader: beyond the reader’s own columns",
        "all": "What would be new even to one who had all parties’ columns and the person’s other labels",
        "sent": "What is new to the reader: beyond what the reader itself sent",
    },
    False: {
        "own": "What is new to the reader: beyond the reader’s own columns and labels",
        "all": "What would be new even to one who had {party}’s other columns, too",
        "sent": "All that the messages tell, whether the reader knew it before or not",
    },
}
ATTACKS = {  # what an attack does, for people
    "norm": "looked at how long each message is",
    "cosine": "compared messages with one whose answer was known",
    "nearest": "took the answer of the most alike known messages",
    "ica": "took messages apart, with no answer known",
    "head": "learned from the last epoch’s messages",
    "head_epochs": "learned from the messages of all epochs",
    "head_epochs_2000": "learned from the messages of all epochs",
    "completion": "learned from what it had itself",
    "labels": "read the labels that were sent",
    "lookup": "learned from the last epoch’s messages",
}
CURVES = {"auc": "AUC", "accuracy": "Accuracy", "rmse": "RMSE"}  # scores that are drawn, and how a title names them
PHASES = {
    "fit": "training",
    "evaluate": "scoring on people with known labels",
    "predict": "forecasting",
    "exchange": "the one exchange",
}


class Edge(NamedTuple):
    """What moved between this party and another, both ways: messages and bytes."""

    other: str
    sent: tuple[int, int]
    received: tuple[int, int]


def check_installed() -> None:
    """Refuse to write a report without the packages that it is written with.

    Raises:
        ModelError: says how to install them.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ModelError(field="report", seen=str(error), wanted="pip install 'mmoe-jax[report]'") from error


def page(account: Account) -> str:
    """The report of an account as HTML. The same account always gives the same text.

    Raises:
        ModelError: as `check_installed`.
    """
    check_installed()
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    words = {"messages": messages, "size": size, "score": score, "read": read, "short": short, "names": names}
    environment.filters |= words | {"odds": math.exp}
    return environment.get_template(TEMPLATE).render(
        account,
        edges=edges(account),
        total=_total(account),
        moved=_moved(account),
        leaks=leaks(account["audit"]) if account["audit"] else [],
        attacks=ATTACKS,
        tried=len({line["attack"] for line in account["audit"] or () if line["attack"] not in CONTROLS}),
        beyond=_beyond(account),
        pictures=_pictures(account),  # whose text is escaped where they are made
    )


def edges(account: Account) -> list[Edge]:
    """The party's edges: every other one of the label party's, and the label party's of every other."""
    own, label = account["party"], account["label_party"]
    others = [p for p in account["parties"] if p != own and label in (own, p)]
    counted = []
    for other in others:
        ways = ((own, other), (other, own))
        sums = [_sum(line for line in account["traffic"] if tuple(line[:2]) == way) for way in ways]
        counted.append(Edge(other, *sums))
    return counted


def leaks(audit: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each reader, question and prior of an audit the line of the attack that read most, the worst first.

    A question whose controls failed has a line without a `leak`.
    """
    worst: dict[tuple, dict[str, Any]] = {}
    for line in audit:
        if line["attack"] in CONTROLS:
            continue
        key = line["to"], line["target"], line["asked"], line["which"], line["prior"]
        said = dict(line) if line["valid"] and line["leak"] is not None else {**line, "leak": None, "error": None}
        if key not in worst or _height(said) > _height(worst[key]):
            worst[key] = said
    priors = [prior for prior in PRIORS if any(key[-1] == prior for key in worst)]
    return sorted(worst.values(), key=lambda line: (priors.index(line["prior"]), -_height(line)))


def messages(count: int) -> str:
    """A number of messages as people say it."""
    return f"{count:,} {'message' if count == 1 else 'messages'}"


def size(count: int) -> str:
    """A number of bytes as people say it."""
    number = float(count)
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def score(value: float | None) -> str:
    """A score with four digits; "none" where it is not finite."""
    return "none" if value is None else f"{value:.4f}"


def read(leak: float | None) -> str:
    """How much a leak is, in words."""
    if leak is None:
        return "no answer: the check of the measurement failed"
    bounds = ((0.1, "next to nothing"), (0.5, "a part"), (0.9, "much"))
    return next((words for bound, words in bounds if leak < bound), "nearly everything")


def names(given: Sequence[str]) -> str:
    """Names in a row, as people say them."""
    return " and ".join([", ".join(given[:-1]), given[-1]] if len(given) > 1 else given)


def short(name: str) -> str:
    """A name that fits into the drawing; the tables have it whole."""
    return name if len(name) <= 18 else f"{name[:17]}…"


def _beyond(account: Account) -> dict[str, str]:
    """Prior -> what a table of leaks counts by it."""
    party = account["party"]
    return {prior: words.format(party=party) for prior, words in BEYOND[party == account["label_party"]].items()}


def _height(line: Mapping[str, Any]) -> float:
    return float("-inf") if line["leak"] is None else float(line["leak"])


def _sum(lines: Any) -> tuple[int, int]:
    counts = [(line[4], line[5]) for line in lines]
    return sum(messages for messages, _ in counts), sum(nbytes for _, nbytes in counts)


def _total(account: Account) -> dict[str, tuple[int, int]]:
    own = account["party"]
    ways = {"sent": 0, "received": 1}
    return {name: _sum(line for line in account["traffic"] if line[place] == own) for name, place in ways.items()}


def _moved(account: Account) -> list[dict[str, Any]]:
    """What moved, by direction, kind and phase."""
    fields = "sender", "receiver", "phase", "kind", "messages", "bytes"
    said = [dict(zip(fields, line, strict=True)) for line in account["traffic"]]
    return [line | {"phase": PHASES.get(line["phase"], line["phase"])} for line in said]


def _labels(names: Sequence[str], scores: Mapping[str, Any]) -> dict[str, str]:
    """What a legend says of those of these scores, and of the same of held-out rows, that there are."""
    of = {"": "while training", "val_": "held-out rows"}
    return {
        before + name: f"{name} ({rows})" for name in names for before, rows in of.items() if before + name in scores
    }


def _pictures(account: Account) -> dict[str, pictures.Picture]:
    """Name -> picture, of what there is to draw."""
    drawn, scores = {}, account["history"]
    losses = _labels(["loss"], scores)
    if losses:
        drawn["losses"] = pictures.history(scores, losses, "The loss after each epoch", "losses")
    for number, task in enumerate(account["tasks"]):
        shown = _labels([f"{task['name']}/{metric}" for metric in CURVES], scores)
        if shown:
            metrics = dict.fromkeys(CURVES[name.rpartition("/")[2]] for name in shown)
            title = f"{names(list(metrics))} of {task['name']} after each epoch"
            drawn[f"history{number}"] = pictures.history(scores, shown, title, f"history{number}")
    scored = account["scored"]
    curves = {task: curve for task, curve in (scored["curves"] if scored else {}).items() if curve}
    if curves:
        drawn["roc"] = pictures.roc(curves, "ROC curves: how well each task's classes are told apart", "roc")
        drawn["calibration"] = pictures.calibration(curves, "Calibration: how often predictions come true", "cal")
    if scored and scored["gates"]:
        tasks = [task["name"] for task in account["tasks"]]
        drawn["gates"] = pictures.gates(scored["gates"], tasks, "Gates: which expert each task listens to", "gates")
    return drawn
