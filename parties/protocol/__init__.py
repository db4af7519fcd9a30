"""What is said between parties and in which order; nothing is computed."""
