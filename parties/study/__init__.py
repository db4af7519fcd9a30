"""A study: the public facts that the parties of a model agree on, as a TOML file; and what is one party's own."""
