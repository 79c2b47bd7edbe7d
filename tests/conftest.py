"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lossfuncs


@pytest.fixture(params=lossfuncs.dispatch.BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend in turn, chosen for the time of the test."""
    with lossfuncs.backend(request.param):
        yield request.param
