"""Where the parties of a model run: what every placement does, the placements in this process, all parties together."""
