"""Where compiled functions are kept between runs, and that runs are the same with and without them."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from click.testing import CliRunner

from parties.command import compiled, group, main

# In a process of its own, as these are settings of JAX. A fold of products may be computed in more than one order.
RUN = """
import os, sys
from pathlib import Path
import jax
from parties.command.compiled import keep_compiled

kept = Path(sys.argv[1])
x = jax.numpy.linspace(0.1, 1.3, 999)

def bits():
    jax.clear_caches()
    return jax.jit(lambda x: jax.numpy.sin(x @ x) / 3)(x).item().hex()

def entries():
    return {file: file.stat().st_mtime_ns for file in kept.glob("*-cache")}

keep_compiled()
plain = bits()
assert not kept.exists()
del os.environ["MMOE_JAX_COMPILED"]
keep_compiled()
assert bits() == plain
first = entries()
assert first
assert bits() == plain and entries() == first, "the second run compiles nothing"
for file in first:
    file.write_bytes(file.read_bytes()[:40])
assert bits() == plain, "a damaged entry is compiled anew"
"""


@pytest.mark.skipif(jax.__version_info__ < (0, 5), reason="nothing is kept there")
def test_kept_functions_change_no_bit(tmp_path):
    kept = tmp_path / "mmoe-jax" / "compiled"
    clean = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment = clean | {"XDG_CACHE_HOME": str(tmp_path), compiled.VARIABLE: "off"}
    done = subprocess.run([sys.executable, "-c", RUN, str(kept)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """The settings of a JAX that has none, where the user's cache is `tmp_path / "cache"`."""
    monkeypatch.delenv(compiled.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = {"jax_compilation_cache_dir": None}
    config = SimpleNamespace(jax_compilation_cache_dir=None, update=made.__setitem__)
    monkeypatch.setattr(compiled, "jax", SimpleNamespace(config=config, __version_info__=(0, 5, 0)))
    return made


def test_who_names_the_folder(settings, tmp_path, monkeypatch):
    """An argument before JAX's own setting, that one before our variable, and that one before the user's cache."""

    def kept(folder: str | None = None) -> str | None:
        settings["jax_compilation_cache_dir"] = None
        compiled.keep_compiled(folder)
        return settings["jax_compilation_cache_dir"]

    own, asked, named = (str(tmp_path / place) for place in ("cache/mmoe-jax/compiled", "asked", "named"))
    assert kept() == own
    assert os.stat(own).st_mode & 0o077 == 0, "who writes an entry writes what others will run"
    monkeypatch.setenv(compiled.VARIABLE, named)
    assert kept() == named
    monkeypatch.setattr(compiled.jax.config, "jax_compilation_cache_dir", "that of the user")
    assert kept() is None
    assert kept(asked) == asked
    monkeypatch.setattr(compiled.jax.config, "jax_compilation_cache_dir", None)
    monkeypatch.setenv(compiled.VARIABLE, "off")
    assert kept() is None


def test_a_folder_that_cannot_be_made_is_no_error(settings, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    compiled.keep_compiled()
    monkeypatch.setenv(compiled.VARIABLE, str(tmp_path / "cache" / "in"))
    compiled.keep_compiled()
    assert settings == {"jax_compilation_cache_dir": None}


def test_an_old_jax_keeps_nothing_unless_asked(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.jax, "__version_info__", (0, 4, 38))
    compiled.keep_compiled()
    assert settings == {"jax_compilation_cache_dir": None} and not (tmp_path / "cache").exists()
    compiled.keep_compiled(str(tmp_path / "asked"))
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / "asked")


def test_the_oldest_entries_make_room(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "LARGEST", 25)
    folder = tmp_path / "cache" / "mmoe-jax" / "compiled"
    folder.mkdir(parents=True)
    for age, name in enumerate(["new", "old", "oldest"]):
        (folder / name).write_bytes(bytes(10))
        os.utime(folder / name, (1000 - age, 1000 - age))
    compiled.keep_compiled()
    assert sorted(file.name for file in folder.iterdir()) == ["new", "old"]


def test_the_command_keeps_compiled_functions(monkeypatch):
    calls = []
    monkeypatch.setattr(group, "keep_compiled", lambda: calls.append("kept"))
    assert CliRunner().invoke(main, ["train", "none.toml", "--own", "none.toml"]).exit_code == 1
    assert calls == ["kept"]
