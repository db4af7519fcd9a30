"""Devices, what hostile ones send, and the tests of both."""

from tests.devices.stand_ins import INSTALLED, reveal, rows_reachable, start

__all__ = ["INSTALLED", "reveal", "rows_reachable", "start"]
