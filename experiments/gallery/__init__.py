"""Short scripts, one of each thing that a model can do, to be read from top to bottom and changed.

`python -m experiments.gallery.three_parties` runs one, in seconds. What it prints stands in its docstring, and a test
compares the two.
"""
