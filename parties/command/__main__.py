"""`python -m parties.command`, where the command is not installed."""

from parties.command.beginnings import main

main(prog_name="mmoe-jax")
