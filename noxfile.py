"""Everything a change must pass, one session per leg: `nox` runs them, `nox -s lint` one, `.ci/run` a clean checkout.

`nox -s thorough` is for a change of the protocol, and before a release.
"""

import re
import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True


def run_tests(session: nox.Session, *arguments: str, **variables: str) -> None:
    session.run("python", "-m", "pytest", "-q", "-n", "2", *arguments, *session.posargs, env=variables)


@nox.session(python=False)
def readme(session: nox.Session) -> None:
    """The README's test command, as a reader types it."""
    found = re.search(r"<!-- test command -->\n```bash\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    if not found:
        session.error("README.md has no test command")
    session.run("bash", "-euo", "pipefail", "-c", found[1])


@nox.session(python="3.11")
def lint(session: nox.Session) -> None:
    """Style and types. All that the tests import is installed, as mypy takes what is missing for `Any`."""
    session.install("-e", ".[lint,test,experiments,flights]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(python="3.12")
def newest(session: nox.Session) -> None:
    """The newest JAX, which Pythons before 3.12 do not get."""
    session.install("-e", ".[test,experiments,flights]", "polars", "duckdb")
    session.install("--no-deps", "recbole==1.2.1")  # has the ratings of `experiments.movielens`, and asks for torch
    run_tests(session)


@nox.session(python="3.13")
def wheel(session: nox.Session) -> None:
    """What OPERATING.md prints, by a wheel with nothing but what it asks for, on the newest Python."""
    session.install(".[keys,export]", "pytest>=8,<9", "pytest-xdist>=3", "hypothesis>=6.100")
    session.run("python", "-m", "pytest", "-q", "--thorough", "tests/test_operating.py", *session.posargs)


@nox.session(python="3.12")
def documents(session: nox.Session) -> None:
    """The tutorial and the gallery, as a reader runs them, on the newest JAX."""
    session.install("-e", ".[test,experiments,documents]")
    run_tests(session, "--thorough", "tests/test_gallery.py", "tests/test_tutorial.py")


@nox.session(python="3.12", default=False)
def thorough(session: nox.Session) -> None:
    """The tests that the others have no time for."""
    session.install("-e", ".[test,experiments]")
    run_tests(session, "--thorough", "-m", "thorough")


@nox.session(python="3.10")
def secretflow(session: nox.Session) -> None:
    """The oldest supported versions, compiled as users compile; SecretFlow in debug mode and production."""
    session.install("-c", "tests/constraints-3.10.txt", "-e", ".[secretflow,test,experiments]")
    run_tests(session, XLA_FLAGS="")


@nox.session(python="3.12")
def report(session: nox.Session) -> None:
    """The reports in Debian's Chromium, offline: what they ask for, what axe finds, and pictures to be looked at.

    It is skipped, and nox says so, where there is no Chromium and none can be installed.
    """
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists() and shutil.which("apt-get"):
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
            session.run("apt-get", "-q", *command, external=True, success_codes=range(256))  # such as without a network
    if not chromium.exists():
        session.skip("no Chromium here, and apt-get installs none")
    session.install("-e", ".[test,experiments]", "playwright", "axe-core-python")
    session.run("python", "-m", "tests.support.browser", "runs/report", *session.posargs)
