"""The command `mmoe-jax`: what organisations type."""
