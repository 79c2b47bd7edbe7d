"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulator.device import DEVICE

import lossfuncs
from lossfuncs import devices

devices.add("emulated", "emulator", lambda: DEVICE)


@pytest.fixture(params=["numpy", "numba", "emulated"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend in turn, chosen for the time of the test."""
    with lossfuncs.backend(request.param):
        yield request.param
