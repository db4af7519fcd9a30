"""The command `mmoe-jax`."""
