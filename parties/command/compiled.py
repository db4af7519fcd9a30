"""Where compiled functions are kept between runs: by the command and by experiments, never by the library itself."""

import os
import warnings
from pathlib import Path

import jax

VARIABLE = "MMOE_JAX_COMPILED"  # names another folder than the user's cache, or is "off"
LARGEST = 1 << 30  # bytes of the user's cache; what was written first makes room
# One process may read what another has half written, or a folder may be full: then JAX compiles, and nothing is lost.
HARMLESS = r"Error (reading|writing) persistent compilation cache entry"


def keep_compiled(folder: str | None = None) -> None:
    """Keep compiled functions in `folder`, so that a second run compiles almost nothing.

    Without one, in the folder that `MMOE_JAX_COMPILED` names, else in `mmoe-jax/compiled` of the user's cache; but
    where JAX has a folder already, such as that of `JAX_COMPILATION_CACHE_DIR`, nothing is changed. Nothing is kept if
    the variable is "off", if the folder cannot be made, and by JAX before 0.5, whose cache two processes at once break.
    """
    if folder is not None:
        _keep(Path(folder).expanduser().resolve())
        return
    named = os.environ.get(VARIABLE, "")
    users = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if named == "off" or users is not None or jax.__version_info__ < (0, 5):
        return
    try:
        own = Path(named).expanduser().resolve() if named else _users_cache()
        _keep(own)
        if not named:
            _make_room(own)
    except (OSError, RuntimeError):  # no home folder, or one that cannot be written
        return


def _users_cache() -> Path:
    """The folder by the XDG Base Directory Specification; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "mmoe-jax" / "compiled"


def _keep(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # who writes an entry writes what others will run
    warnings.filterwarnings("ignore", HARMLESS, UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _make_room(folder: Path) -> None:
    """Remove the oldest entries of a folder that has become too large; another process may remove the same ones."""
    entries = []
    for file in folder.iterdir():
        try:
            entries.append((file.stat().st_mtime, file.stat().st_size, file))
        except FileNotFoundError:
            continue
    total = sum(size for _, size, _ in entries)
    for _, size, file in sorted(entries):
        if total <= LARGEST:
            return
        file.unlink(missing_ok=True)
        total -= size
