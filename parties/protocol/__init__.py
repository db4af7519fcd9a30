"""What crosses between parties and in which order. Nothing here computes, and nothing here knows a network."""
