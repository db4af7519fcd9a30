"""A party's folder on disk: states, card, checkpoints. It knows one party's states and descriptions, and no network."""
