"""The parties' frames and the join by their ids. Nothing here knows JAX, a network or a device."""
