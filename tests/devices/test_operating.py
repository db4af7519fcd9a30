"""What OPERATING.md prints, by a wheel, a process per party. Collected where SecretFlow is installed."""

import pytest

from tests.support.operating import Installed, blocks, check_scores

pytestmark = pytest.mark.long


def test_two_processes_do_as_printed(tmp_path):
    installed, printed = Installed(tmp_path), blocks()
    (empty := tmp_path / "empty").mkdir()
    installed.run([printed["rehearse"]], empty)
    home = empty / "rehearsal"
    for name in ("keys at alice", "keys at bob", "sign at alice", "hand over"):
        installed.run([printed[name]], home)
    alice, bob = installed.run([printed["at alice"], printed["at bob"]], home)
    for said in (alice, bob):
        assert " passed, 0 failed" in said and "reached_by_" in said and "tls_handshake" in said
    assert "\n  income_50k/auc 0." in alice and "auc" not in bob, "alice alone hears the scores"
    check_scores(home / "scores.csv", home)
    assert {page.name for page in (home / "runs" / "study").glob("*.html")} == {"report-alice.html", "report-bob.html"}
    assert {file.parent.name for file in home.rglob("*.key")} == {"alice", "authority", "bob"}
    assert not installed.refused.exists(), installed.refused.read_text()
