"""The command `mmoe-jax`: what two organisations do with a study, apart, or in one process."""

from parties.command.group import main

__all__ = ["main"]
