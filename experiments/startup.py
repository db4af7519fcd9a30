"""Settings of JAX that an experiment makes before it compiles; the library itself makes none."""

from pathlib import Path

import jax


def keep_compiled(folder: str | None) -> None:
    """Keep compiled functions in `folder`, unless it is None: a second run with the folder compiles almost nothing."""
    if folder is None:
        return
    path = Path(folder).expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
