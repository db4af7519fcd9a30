"""Which tests run: all in the deep profile, and without it those that fit into five minutes on two cores."""

import os

import pytest

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
only_deep = pytest.mark.skipif(not DEEP, reason="runs in the deep profile")
