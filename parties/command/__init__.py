"""The command: what two organisations type."""
