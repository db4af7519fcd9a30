"""A run of `fit`: epochs, callbacks, early stopping, where it is; and sweeps."""
