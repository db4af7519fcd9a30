"""Parties compare their studies, in one process: SecretFlow's debug mode where it is installed, else stand-ins."""

import pytest

from parties import MessageError, OneShot, StudyError, Training
from parties.devices import agreement
from parties.devices.agreement import agree
from parties.devices.answers import say
from tests import devices
from tests.support.studies import study

pytestmark = [pytest.mark.xdist_group("test_pyu")]
if devices.INSTALLED:
    pytestmark.append(pytest.mark.filterwarnings("default"))  # SecretFlow's own
OWN = study().digests


@pytest.fixture
def pyus(monkeypatch):
    return devices.start(["alice", "bob"], monkeypatch)


def answering(monkeypatch, *answers):
    """Let alice and bob, who are asked in this order, tell these."""
    left = iter(answers)
    monkeypatch.setattr(agreement, "_tell", lambda digests: next(left))


def test_equal_studies_pass(pyus, monkeypatch):
    told = []
    monkeypatch.setattr(agreement, "_tell", lambda digests: told.append(digests) or say(digests=digests))
    agree(pyus, OWN)
    assert told == [OWN, OWN], "every party was asked"


@pytest.mark.parametrize(
    ("other", "key", "seen"),
    [
        ({"training": Training(epochs=2)}, "training.epochs", "another value than this party's"),
        (
            {"protect": OneShot(1)},
            "protect.allow_unprotected",
            "no such key at one of the parties, and so in 5 further",
        ),
    ],
)
def test_another_study_is_refused_by_its_key(pyus, monkeypatch, other, key, seen):
    """Both ways: what this party has and the other lacks, and what the other has."""
    for own, told in ((OWN, study(**other).digests), (study(**other).digests, OWN)):
        for party, answers in {"bob": (own, told), "alice": (told, own)}.items():
            answering(monkeypatch, *(say(digests=answer) for answer in answers))
            with pytest.raises(StudyError) as caught:
                agree(pyus, own)
            assert (caught.value.party, caught.value.field) == (party, key) and caught.value.seen.startswith(seen)


@pytest.mark.parametrize("junk", [None, 3, [], "x", {"seed": 1}, {"seed": None}, {"seed": ["0"]}], ids=repr)
def test_junk_in_the_place_of_digests_is_a_message_error(pyus, monkeypatch, junk):
    good, bad = say(digests=OWN), say() if junk is None else say(digests=junk)
    for party, answers in {"bob": (good, bad), "alice": (bad, good)}.items():
        answering(monkeypatch, *answers)
        with pytest.raises(MessageError) as caught:
            agree(pyus, OWN)
        assert (caught.value.party, caught.value.field) == (party, "study")


def test_a_key_of_any_length_is_not_shown_in_full(pyus, monkeypatch):
    monkeypatch.setattr(agreement, "_tell", lambda digests: say(digests=OWN | {"a" * 100_000: ""}))
    with pytest.raises(StudyError) as caught:
        agree(pyus, OWN)
    assert len(str(caught.value)) < 500
