"""Pure functions of a round: what each party computes."""
