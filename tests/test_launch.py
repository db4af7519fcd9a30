"""The launcher of a process a party: what it shows, and that nothing outlives it."""

import os
import subprocess
import sys
import time

from experiments import launch


def test_a_launched_party_ends_with_its_launcher(tmp_path):
    """The launcher is killed: what it started is gone too."""
    (tmp_path / "waiting.py").write_text(
        "import os, sys, time; assert __name__ == '__main__' and sys.argv[1:] == ['one', '--two']; "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    code = "from experiments import launch; launch.launch({'alice': launch.module('waiting', 'one', '--two')}, 1)"
    where = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=where)
    assert process.stdout is not None
    pid = int(process.stdout.readline().split("|")[1])
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def test_the_launcher_shows_names_and_ends_the_others(capfd):
    failing = [sys.executable, "-c", "import sys; print('no'); sys.exit(3)"]
    waiting = [sys.executable, "-c", "import time; print('waits', flush=True); time.sleep(60)"]
    began = time.monotonic()
    assert launch.launch({"alice": failing, "bob": waiting}, patience=1.0) == 3
    assert time.monotonic() - began < 20
    assert set(capfd.readouterr().out.splitlines()) == {"alice | no", "bob   | waits"}
    assert launch.launch({"alice": [sys.executable, "-c", "pass"]}, patience=1.0) == 0
