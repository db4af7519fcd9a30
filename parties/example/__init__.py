"""An example that needs no network: sampled rows of Census Income, as two parties would hold them."""
