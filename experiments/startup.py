"""What an experiment sets of JAX before it compiles. The library sets nothing."""

from pathlib import Path

import jax


def keep_compiled(folder: str | None) -> None:
    """Keep compiled functions in `folder`, where there is one: a second run with it compiles almost nothing."""
    if folder is None:
        return
    path = Path(folder).expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
