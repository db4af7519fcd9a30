"""Random keys by name: adding a party changes no other's parameters."""

import hashlib

import jax


def stable_hash(name: str) -> int:
    """The first 32 bits of SHA-256 of `name`: the same in every process and version, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def fold_name(key: jax.Array, name: str) -> jax.Array:
    """The key of that name: `fold_in(key, stable_hash(name))`."""
    return jax.random.fold_in(key, stable_hash(name))


def base_key(key: jax.Array, party: str) -> jax.Array:
    """The key of a party's base network: `fold_in(key, stable_hash(party))`."""
    return fold_name(key, party)


def fuse_key(key: jax.Array, label_party: str) -> jax.Array:
    """The key of the label party's fuse network; "/" cannot occur in a party's name."""
    return fold_name(key, f"{label_party}/fuse")
