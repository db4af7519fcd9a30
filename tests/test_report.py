"""Each party's report: what it says, what it must not hold, and how it is built."""

import base64
import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmoe_jax import Categorical, MMoEBase, Numeric
from mmoe_jax.curves import POINTS, curves
from mmoe_jax.metrics import CALIBRATION_BINS, METRICS
from parties import ModelError, OneShot, Party, SaveError
from parties.reporting import account as accounts_of
from parties.reporting.page import BEYOND, _pictures, leaks, page
from parties.saving.exports import parameters_digest
from tests.support import reports
from tests.support.reports import DOLLARS, SCRIPT

pytestmark = pytest.mark.xdist_group("test_report")  # one worker, which trains the model once
pytest.importorskip("jinja2")
PLANTED = 12345.678  # a parameter
VOID = ("meta", "link", "br", "img", "hr", "input")


class Page(HTMLParser):
    """The elements of a page, checked to be well nested, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.titled: list[bool] = []  # of each SVG, whether a title is its first child
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if self.open and self.open[-1] == "svg" and self.elements[-1][0] == "svg":
            self.titled.append(tag == "title")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.words.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def trained():
    return reports.run(audit=True)


@pytest.fixture(scope="module")
def told(trained) -> dict[str, dict[str, Any]]:
    """Party -> its account, made before the pages, as each counts the messages of one more pass."""
    return trained.account()


@pytest.fixture(scope="module")
def written(trained, told, tmp_path_factory) -> dict[str, str]:
    """Party -> its page."""
    files = trained.report(tmp_path_factory.mktemp("reports") / "run.html", beside={"alone": {"rich/auc": 0.25}})
    assert {party: file.name for party, file in files.items()} == {p: f"run-{p}.html" for p in ("alice", "bob")}
    return {party: file.read_text() for party, file in files.items()}


@pytest.mark.parametrize("party", ["alice", "bob"])
def test_a_page_loads_nothing_and_can_be_read_by_all(written, party):
    text = written[party]
    read = Page(text)
    tags = [tag for tag, _ in read.elements]
    assert not {"script", "iframe", "object", "img", "base", "form"} & set(tags)
    for tag, given in read.elements:
        assert not [name for name in given if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert given.get(name, "#").startswith("#"), (tag, given)
        for target in re.findall(r"url\(([^)]*)\)", given.get("style", "") + given.get("clip-path", "")):
            assert target.startswith("#")
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [given["id"] for _, given in read.elements if "id" in given]
    assert len(set(ids)) == len(ids)
    for _, given in read.elements:
        wanted = given.get("aria-labelledby", "").split() + [given.get("href", given.get("xlink:href", ""))[1:]]
        assert {name for name in wanted if name} <= set(ids)
    assert read.elements[0] == ("html", {"lang": "en"}) and "title" in tags and tags.count("h1") == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False))
    svgs = [given for tag, given in read.elements if tag == "svg"]
    assert len(svgs) >= 1 and all(given["role"] == "img" for given in svgs) and read.titled == [True] * len(svgs)
    assert all(given.get("scope") in ("row", "col") for tag, given in read.elements if tag == "th")
    assert len(text.encode()) < 3_000_000


def shapes(value: str) -> set[str]:
    """A text as it is and in the forms in which a page may hide it."""
    forms = {value, html.escape(value), json.dumps(value)[1:-1], value.encode().hex()}
    for at in range(3):  # bytes before it, of which base64 makes other letters
        coded = base64.b64encode(b"x" * at + value.encode()).decode()
        forms.add(coded[4 * (at > 0) : len(coded) // 4 * 4 - 4])
    return {form for form in forms if len(form) > 4}


def leaked(text: str, states: Any) -> list[str]:
    """Planted cells and ids, also in other forms, and the numbers of all parameters, that a text holds."""
    cells = [*reports.SCHOOLS, *reports.JOBS, str(reports.WAGE), *reports.people()["bob"]["id"]]
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(states)]
    numbers = {f"{abs(float(x)):.7g}" for leaf in leaves for x in leaf}
    forms = {form for value in cells for form in shapes(value)} | {number for number in numbers if len(number) > 7}
    return [form for form in forms if form in text]


def test_a_report_holds_no_row_and_nothing_of_another_partys(trained, told, written):
    for party, text in written.items():
        for said in (text, json.dumps(told[party])):
            assert leaked(said, trained.states()) == []
    for cell in (reports.JOBS[0], str(reports.WAGE), reports.people()["bob"]["id"][0]):
        assert leaked(json.dumps({"account": [cell]}), trained.states()), "it is found where it is"
    assert "secret school" not in written["bob"] and "secret job" not in written["alice"]
    assert SCRIPT not in written["bob"] + written["alice"] and html.escape("<script>alert(") in written["bob"]
    assert "alert" not in written["alice"]
    said = Page(written["bob"]).text
    assert "secret job" in said and "bob has no scores" in said and "rich/auc" not in said and "ROC" not in said


def test_a_page_says_what_was_counted(trained, written):
    counted = trained._consortium.placement.channel
    for party, other in (("alice", "bob"), ("bob", "alice")):
        said = Page(written[party]).text
        for sender, receiver in ((party, other), (other, party)):
            messages = sum(n for key, n in counted.messages.items() if key[:2] == (sender, receiver))
            nbytes = sum(n for key, n in counted.bytes.items() if key[:2] == (sender, receiver))
            assert messages > 0 and f"{messages:,} messages" in said and f"{messages:,} {nbytes:,}" in said
        for network, state in trained.states()[party].items():
            line = f"fingerprint of the parameters of {party}’s {network} (SHA-256) {parameters_digest(state.params)}"
            assert line in said  # the card of an export has the same
        assert "A rehearsal." in said and "Nothing was done to hide alice’s labels" in said
        assert "Each of the" in said and "TLS" not in said  # nothing is known of TLS in one process
    assert "4 numbers that bob’s part of the model computed" in Page(written["bob"]).text
    scores, said = trained.evaluate(reports.data().take(range(40))), Page(written["alice"]).text
    assert f"rich/auc {scores['rich/auc']:.4f} 0.2500" in said and "rich: KS" in said
    assert DOLLARS in said and "expert 2" in said
    made = trained.account()["alice"]
    own = made["scored"] | {"scores": made["scored"]["scores"] | {"rich/ks": 0.5}}
    said = Page(page(made | {"scored": own})).text  # a metric of the task's own is said once
    assert "rich/ks 0.5000" in said and "rich: KS" not in said and "rich: lift" in said and f"{DOLLARS}: KS" in said


def test_each_question_of_an_audit_is_of_its_own_column():
    """Also where what it asks may be read as a value of another; and no value is told."""
    cells = {"a": np.resize(["b=c", "d"], reports.N), "a=b": np.repeat(["e", "f"], reports.N // 2)}
    party = Party([Categorical("a"), Categorical("a=b"), Numeric(reports.SCRIPT)], MMoEBase((4,)), reports.ADAM)
    model, rows = reports.model(bob=party), reports.data(bob=reports.people()["bob"].assign(**cells))
    model.fit(rows, epochs=1, batch_size=20, record=True, progress=False)
    table = model.audit(rows, hints=10)
    own = table[table.party == "bob"]
    assert set(table.party) == {"alice", "bob"} and set(table.column[table.party == "alice"]) == {""}
    column_of = dict(zip(own.target, own.column, strict=True))
    assert column_of["a=b=c"] == "a" and column_of["a=b=e"] == "a=b" and reports.SCRIPT in column_of.values()
    lines = model.account()["bob"]["audit"]
    assert {(line["target"], line["asked"]) for line in lines} == {
        ("a", "value"),
        ("a=b", "value"),
        (reports.SCRIPT, "above"),
    }
    for name, account in model.account().items():
        said = Page(page(account)).text
        assert all(words.format(party=name) in said for words in BEYOND[name == "alice"].values())


@pytest.mark.parametrize("name", ["_x", "val_x"])
def test_a_task_of_any_name_is_in_pictures_and_their_legends(told, name):
    """Matplotlib leaves out what begins with an underscore; scores of held-out rows begin with `val_`."""
    renamed = json.loads(json.dumps(told["alice"]).replace('"rich', f'"{name}').replace('"val_rich', f'"val_{name}'))
    legends = {
        "history0": [f"{name}/auc (while training)", f"{name}/auc (held-out rows)"],
        "roc": [name],
        "calibration": [name],
        "gates": [name],
    }
    drawn = _pictures(renamed)
    for picture, labels in legends.items():
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn[picture].svg)
        assert set(labels) <= {text.lstrip("\u200b") for text in texts}, (picture, texts)


def test_validation_rows_are_scored_as_they_are_held(trained, monkeypatch):
    """Not encoded again, with the scores that they have when given."""
    given = trained.account(reports.data().take(range(40)))["alice"]
    held: list[Any] = []
    monkeypatch.setattr(trained._consortium, "hold", held.append)
    own = trained.account()["alice"]
    assert not held and own["scored"]["scores"] == pytest.approx(given["scored"]["scores"])
    assert own["scored"]["rows"] == own["rows"]["validation"] == 40


def test_what_restored_states_replace_is_not_told_of_them():
    """Neither history, rows, validation, audit nor how it was trained; but messages that were counted stay counted."""
    model = reports.run(audit=True)
    before, states = model.account(), model.states()
    model.restore(states, reports.data(), epoch=7)
    for party, account in model.account().items():
        assert account["history"] == account["rows"] == {} and account["audit"] is account["scored"] is None
        assert account["training"] == {"began": 0, "restored": 7} and account["epochs"] == 7
        assert account["traffic"] == before[party]["traffic"] != []
        assert "took the states of another run, of epoch 7" in Page(page(account)).text
        assert "took the states" not in Page(page(before[party])).text
    fresh = reports.model()
    fresh.restore(states, reports.data(), epoch=7)
    for account in fresh.account().values():
        assert account["training"] == {"began": 7, "restored": None} and account["traffic"] == []
        assert "Counting began after epoch 7" in Page(page(account)).text


def test_the_same_account_gives_the_same_page_later_and_a_damaged_one_none(trained, tmp_path):
    made = trained.account()
    accounts_of.write_account(tmp_path / "bob.json", made["bob"])
    assert (tmp_path / "bob.json").stat().st_mode & 0o077 == 0 and len([*tmp_path.iterdir()]) == 1
    with pytest.raises(SaveError, match="party 'bob'.*wanted a file that can be written"):
        accounts_of.write_account(tmp_path / "bob.json" / "bob.json", made["bob"])
    assert page(accounts_of.read_account(tmp_path / "bob.json", "bob")) == page(made["bob"])
    whole = (tmp_path / "bob.json").read_text()
    damages = {
        "digest": whole.replace('"seed": 3', '"seed": 4'),
        "JSON": whole[:-9],
        "written": "[" * 100_000,
        "format 2": json.dumps({"account": {"format": 1}, "digest": accounts_of._digest({"format": 1})}),
    }
    for wanted, text in damages.items():
        (tmp_path / "bob.json").write_text(text)
        with pytest.raises(SaveError) as error:
            accounts_of.read_account(tmp_path / "bob.json", "bob")
        assert error.value.party == "bob" and (wanted in str(error.value)), error.value
    accounts_of.write_account(tmp_path / "bob.json", made["bob"])
    with pytest.raises(SaveError, match="party 'alice'.*saw party 'bob'"):
        accounts_of.read_account(tmp_path / "bob.json", "alice")
    with pytest.raises(SaveError, match="mmoe-jax train"):
        accounts_of.read_account(tmp_path / "none.json", "bob")


def test_a_planted_parameter_is_in_no_page_and_no_account():
    """In whichever format it would be written."""
    model, rows = reports.run(), reports.data()
    states = model.states()
    for state in [state for own in states.values() for state in own.values()]:
        jax.tree.leaves(state.params)[0].flat[0] = PLANTED
    model.restore(states, rows, epoch=3)
    needles = f"{PLANTED:.1f}"[:-1], f"{PLANTED:,.1f}"[:6], f"{PLANTED:.6g}", f"{PLANTED:.3e}"
    assert needles[:2] == ("12345.", "12,345")
    for party, account in model.account(rows).items():
        assert all(PLANTED in jax.tree.leaves(state.params)[0] for state in model.states()[party].values())
        for said in (page(account), json.dumps(account)):
            assert [needle for needle in needles if needle in said] == [], party


def test_what_was_not_done_is_not_said(trained):
    """Without an audit, scored rows and messages; under protection what is proved, and by which epsilon."""
    made = trained.account()["alice"]
    said = Page(page(made | {"audit": None, "scored": None, "traffic": [], "history": {}})).text
    assert "Not audited" in said and "No rows were held out" in said and "No message was counted" in said
    protected = OneShot(2.0)
    protect = {"kind": "one_shot", "one_shot": True, "name": "one_shot", "proved": True, "spent": None}
    guarantee = protected.guarantee(reports.model().tasks)
    protect |= {name: getattr(guarantee, name) for name in ("unit", "adjacency", "covers")}
    said = Page(page(made | {"protect": protect | {"each": {"rich": 2.0, DOLLARS: 2.0}}})).text
    assert "7.39 (“rich”, epsilon 2)" in said and "dp-accounting is not installed" in said
    meeting = {"agreed": True, "alignment": "psi", "tls": False, "transport": "grpc", "study": "0" * 64}
    said = Page(page(made | {"meeting": meeting, "apart": True})).text
    assert "No TLS was used" in said and "private set intersection" in said and "agreed" in said
    assert "A rehearsal" not in said


def test_the_worst_attack_is_shown_and_a_void_one_has_no_number():
    line = {"party": "bob", "to": "alice", "target": "job", "asked": "value", "which": 1, "prior": "own", "error": 0.1}
    audit = [
        line | {"attack": "own_columns", "leak": 0.9, "valid": True},
        line | {"attack": "lookup", "leak": 0.2, "valid": True},
        line | {"attack": "nearest", "leak": 0.4, "valid": True},
        line | {"attack": "lookup", "which": 2, "leak": 0.8, "valid": False},
    ]
    assert [(found["which"], found["leak"]) for found in leaks(audit)] == [(1, 0.4), (2, None)]


@pytest.mark.parametrize("wrong", ["page.txt", "page"])
def test_a_path_of_another_kind_is_refused(trained, tmp_path, wrong):
    with pytest.raises(ModelError, match="html"):
        trained.report(tmp_path / wrong)
    with pytest.raises(ModelError, match="beside"):
        trained.report(tmp_path / "run.html", beside={"alone": 0.5})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", ["jinja2", "matplotlib"])
def test_a_report_without_its_packages_says_which_extra_has_them(trained, tmp_path, monkeypatch, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(ModelError, match=r"mmoe-jax\[report\]"):
        trained.report(tmp_path / "run.html")


def test_curves_are_scikit_learns():
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import roc_curve

    draw = np.random.default_rng(0)
    p, y, w = np.round(draw.uniform(size=500), 2), draw.integers(0, 2, 500).astype(float), draw.uniform(0, 2, 500)
    found = curves(p, np.where(np.arange(500) % 7 == 0, np.nan, y), w)
    kept = np.arange(500) % 7 > 0
    false, true, _ = roc_curve(y[kept], p[kept], sample_weight=w[kept], drop_intermediate=False)
    assert found is not None and len(found.true_positives) <= POINTS
    assert found.ks == pytest.approx(np.max(np.abs(true - false)), abs=1e-6)
    points = np.stack([false, true], axis=1)[:, None]
    drawn = np.stack([found.false_positives, found.true_positives], axis=1)[None]
    assert np.abs(points - drawn).max(axis=2).min(axis=0).max() < 1e-6  # weights are kept in float32
    p = draw.uniform(size=500)  # none at an edge, which scikit-learn counts to the bin below
    ones = curves(p, y, np.ones(500))
    assert ones is not None
    observed, predicted = calibration_curve(y, p, n_bins=10)
    np.testing.assert_allclose(ones.observed, observed, atol=1e-12)
    np.testing.assert_allclose(ones.predicted, predicted, atol=1e-12)
    assert sum(ones.shares) == pytest.approx(1) and ones.rate == y.mean()
    assert curves(np.array([0.9] * 5 + [0.1] * 45), np.array([1.0] * 5 + [0.0] * 45), np.ones(50)).lift_10 == 10  # type: ignore[union-attr]
    assert curves(np.full(10, 0.5), np.tile([0.0, 1.0], 5), np.ones(10)).lift_10 == pytest.approx(1)  # type: ignore[union-attr]
    assert curves(p, np.ones(500), w) is None and curves(p, np.full(500, np.nan), w) is None
    assert curves(np.append(p, np.nan), np.append(y, 1), np.ones(501)) is None
    assert curves(np.append(p, np.nan), np.append(y, 1), np.append(np.ones(500), 0)) == ones


def test_bins_of_calibration_are_those_of_the_metric():
    """Also at edges, of which most in float32 are on another side than in float64."""
    edges = np.repeat(np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS, 2).astype(np.float32)
    p = np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.array([0, 1], np.float32)])
    y, w = np.arange(len(p)) % 3 == 0, np.linspace(1, 2, len(p))
    found, metric = curves(p, y.astype(float), w), METRICS["calibration_error"](len(p))
    assert found is not None and len(found.shares) == CALIBRATION_BINS
    error = np.abs(np.subtract(found.predicted, found.observed)) @ found.shares
    assert error == pytest.approx(metric.compute(metric.update(metric.init(), *map(jnp.asarray, (p, y, w)))), abs=1e-6)
    seven = curves(np.array([0.7, 0.65], np.float32), np.array([1.0, 0.0]), np.ones(2))
    assert seven is not None and seven.observed == [0.0, 1.0]


@pytest.mark.thorough
def test_three_parties_and_one_process_without_messages(tmp_path):
    files = reports.three_parties().report(tmp_path / "three.html")
    said = {party: Page(file.read_text()).text for party, file in files.items()}
    assert "Between bob and carol nothing moved" in said["bob"] and "secret clicks" not in said["bob"] + said["alice"]
    assert "What moved between alice and carol" in said["alice"]
    fused = reports.run("fused").account()
    assert "no message was made" in Page(page(fused["bob"])).text
    assert Path(files["carol"]).name == "three-carol.html"
