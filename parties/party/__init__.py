"""One party: its rows, state, pending rounds and folder, the only things that change. It knows no other party."""
