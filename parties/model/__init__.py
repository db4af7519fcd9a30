"""Networks, tasks and columns: put together, described, encoded. Besides `split_model` only this knows `mmoe_jax`."""
