"""A party's folder on disk: states, descriptions, checkpoints."""
