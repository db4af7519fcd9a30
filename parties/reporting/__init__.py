"""What one party shows of a run: its account, and the page that says it to people."""
