"""Strict settings for every test: no silent broadcasting, no warnings, random streams that agree on every version."""

import gc
import importlib.metadata
import importlib.util
import os
import signal
from typing import Any

# Most of a test's time is XLA's: compile fast rather than run fast. CI has a leg that compiles as users do.
flags = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # by version, as a flag that XLA does not know ends Python
    flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("XLA_FLAGS", " ".join(flags))
os.environ["MMOE_JAX_COMPILED"] = "off"  # nothing in the user's cache, from processes that tests start, either

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

gc.freeze()  # what is imported stays
gc.set_threshold(100_000, 50, 100)  # tracing makes many objects and few circles

pytest.register_assert_rewrite("tests.support")  # so that its assertions, too, say what they saw

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_threefry_partitionable", True)

# Has a leg of CI of its own, as SecretFlow shares no environment with new JAX.
NEEDS = "checks", "command", "hostile_peer", "intersection", "operating", "production", "round_trip"
NEED_SECRETFLOW = [f"devices/test_{name}.py" for name in NEEDS]
collect_ignore = [] if importlib.util.find_spec("secretflow") else NEED_SECRETFLOW
collect_ignore += [] if importlib.util.find_spec("nbclient") else ["test_tutorial.py"]  # `nox -s documents` has it

common: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("ci", derandomize=True, database=None, max_examples=5, **common)
settings.register_profile("deep", max_examples=500, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="module")
def float64():
    """Double precision for a module's tests; the default of JAX otherwise."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def one_key(monkeypatch):
    """The label party's key under protection, the same for every model, so that two runs can be compared."""
    from parties.party import participant

    monkeypatch.setattr(participant, "new_key", lambda: bytes(range(32)))


@pytest.fixture
def drawn(monkeypatch):
    """The labels of `tests.support.protected` randomised once, whatever the clean ones are."""
    from parties import Facing
    from tests.support.protected import PROTECT, TASKS, build, data

    model = build()._consortium.placement.parties["alice"].model
    part = model.encode("alice", data(), (), training=True, labels=True)
    first = PROTECT.randomise(TASKS, part, bytes(32))
    monkeypatch.setattr(Facing, "randomise", lambda self, tasks, rows, key: first)


def pytest_configure(config):
    """What one worker has compiled, another need not, nor the next run; unless pytest is to keep nothing."""
    if jax.__version_info__ < (0, 5):  # whose cache cannot be written by two at once
        return
    if not config.pluginmanager.hasplugin("cacheprovider"):
        return
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="also the tests that the default run has no time for")


def pytest_collection_modifyitems(config, items):
    """Long tests first, so that workers share them and end together; thorough ones only where they are asked for."""
    if not config.getoption("--thorough"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def ctrl_c():
    """Python's own handler: a shell that starts tests in the background lets them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
