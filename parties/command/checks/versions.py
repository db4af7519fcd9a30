"""Which versions a party has, and whether SecretFlow is the one that can be used."""

import platform

import jax

from mmoe_jax import __version__
from parties.command.checks.check import Check, failed, passed
from parties.devices.driver import secretflow
from parties.errors import ModelError


def versions() -> dict[str, str]:
    """What the parties compare: package -> its version here."""
    return {"mmoe-jax": __version__, "jax": jax.__version__}


def check_versions(devices: bool) -> list[Check]:
    """`versions`: those of this process.

    Args:
        devices: whether the parties are to run on SecretFlow devices.
    """
    found = {"python": platform.python_version(), **versions()}
    if devices:
        try:
            found["secretflow"] = secretflow_version()
        except ModelError as error:
            do = "Install SecretFlow on Python 3.10 as the run book says, and start this command there."
            return [failed("versions", error, do)]
    return [passed("versions", ", ".join(f"{name} {version}" for name, version in found.items()))]


def secretflow_version() -> str:
    """The version of SecretFlow.

    Raises:
        ModelError: it is not installed, or another than its transports are known of.
    """
    secretflow()
    from parties.devices.transports import SECRETFLOW, check_version

    check_version()
    return SECRETFLOW
