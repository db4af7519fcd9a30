"""The only room that knows `mmoe_jax`: networks, tasks and columns put together, described, encoded."""
