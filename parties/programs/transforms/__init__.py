"""What changes a round: each transform takes a program and returns a program."""
