"""What changes a round: program -> program."""
