"""The commands of OPERATING.md as they are printed, with the wheel of this checkout in an environment of its own."""

import contextlib
import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parties.example.files import LABELS

ROOT = Path(__file__).parents[2]
BOOK = (ROOT / "OPERATING.md").read_text()
# A Python that runs this at its start reaches this machine alone. What a process is refused, it adds to a file.
GUARD = """
import ipaddress, os, sys

SENDS, ASKS = ("socket.connect", "socket.sendto", "socket.sendmsg"), ("socket.getaddrinfo", "socket.gethostbyname")

def look(event, arguments):
    if event in SENDS + ASKS:
        host = arguments[0] if event in ASKS else arguments[1][0] if isinstance(arguments[1], tuple) else None
        if isinstance(host, (str, bytes)) and not here(os.fsdecode(host)):
            with open(__file__ + ".log", "a") as log:
                log.write(f"{event} {host!r}\\n")
            raise OSError(f"no network: {host!r}")

def here(host):
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in ("", "localhost")

sys.addaudithook(look)
"""


def blocks() -> dict[str, str]:
    """Marker -> the commands that follow it."""
    return dict(re.findall(r"^<!-- ([^\n]+) -->\n```bash\n(.*?)```$", BOOK, re.DOTALL | re.MULTILINE))


def check_scores(file: Path, home: Path) -> None:
    """The file has alice's test rows of the example, and a probability for each of her labels."""
    with file.open() as scores, (home / "alice" / "test.csv").open() as test:
        rows, asked = list(csv.DictReader(scores)), list(csv.DictReader(test))
    assert sorted(row.pop("id") for row in rows) == sorted(row["id"] for row in asked)
    assert all(list(row) == list(LABELS) and all(0 < float(cell) < 1 for cell in row.values()) for row in rows)


class Installed:
    """The wheel in a virtual environment, beside the packages of the running one, and neither a checkout nor a network.

    Attributes:
        site: where the environment's packages are.
        refused: the file of what a process asked of the network; there is none as long as none did.
    """

    def __init__(self, folder: Path):
        sources = folder / "sources"
        for package in ("mmoe_jax", "parties"):
            shutil.copytree(ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / file, sources)
        pip = [sys.executable, "-m", "pip", "-q"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(sources)], check=True)
        shutil.rmtree(sources)
        self._bin = folder / "environment" / "bin"
        python = str(self._bin / "python")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self._bin.parent)], check=True)
        (wheel,) = folder.glob("*.whl")
        how = ["--python", python, "install", "--no-deps", "--no-index"]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([*pip, *how, str(wheel)], check=True, env=clean)  # else a checkout there passes for installed
        asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        site = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
        # A path alone: such files of the other environment, by which a checkout may be installed there, are not read.
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (site / "no_network.py").write_text(GUARD)
        (site / "no_network.pth").write_text("import no_network\n")
        self.site, self.refused = site, site / "no_network.py.log"
        self._check(folder)

    def _check(self, folder: Path) -> None:
        """The wheel is what is imported, there is no checkout, and the network is refused."""
        lines = [
            "import parties, socket; print(parties.__file__)",
            "import importlib.util; print(importlib.util.find_spec('experiments'))",
            "socket.create_connection(('192.0.2.1', 9), 1)",
        ]
        process = self.start(f"python -c {shlex.quote(chr(10).join(lines))}", folder)
        out, err = process.communicate()
        assert out.splitlines() == [str(self.site / "parties" / "__init__.py"), "None"], out + err
        assert "no network: '192.0.2.1'" in err
        self.refused.unlink()

    def start(self, script: str, folder: Path) -> subprocess.Popen[str]:
        """Run lines of a shell in the folder, until the first that fails."""
        variables = {"PATH": f"{self._bin}{os.pathsep}{os.defpath}", "HOME": str(folder)}
        command = ["bash", "-euo", "pipefail", "-c", script]
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=folder, env=variables, start_new_session=True, **how)

    def run(self, scripts: Sequence[str], folder: Path, seconds: float = 240.0) -> list[str]:
        """Run them at the same time, and return what each says on standard output; all end well."""
        processes = [self.start(script, folder) for script in scripts]
        try:
            said = [process.communicate(timeout=seconds) for process in processes]
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert [process.returncode for process in processes] == [0] * len(said), said
        return [out for out, _ in said]
