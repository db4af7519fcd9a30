"""The command `mmoe-jax`: what organisations do with a study, apart, or all in one process."""

from parties.command.beginnings import main

__all__ = ["main"]
