"""A run of `fit`: epochs, callbacks, early stopping, position; and sweeps. It knows no column and no network."""
