"""Where the parties of a model run, in this process; and all parties asked together."""
