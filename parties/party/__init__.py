"""One party: the only mutable things, its rows, state, pending rounds and folder."""
