"""Pure functions of a round: what each party computes. Columns are any pytree, networks any callables."""
