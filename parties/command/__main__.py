"""`python -m parties.command`, where the command is not installed."""

from parties.command.group import main

main(prog_name="mmoe-jax")
