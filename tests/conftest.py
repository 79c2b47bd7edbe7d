"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from emulator.device import DEVICE

import lossfuncs
from lossfuncs import devices

devices.add("emulated", "emulator", lambda: DEVICE)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["numpy", "numba", "emulated"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend in turn, chosen for the time of the test."""
    with lossfuncs.backend(request.param):
        yield request.param
