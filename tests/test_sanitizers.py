"""The CUDA kernels under the compiler's sanitizers, and that these see what is planted for them."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest
import sanitized

pytestmark = pytest.mark.sanitize

HERE = Path(__file__).parent


@pytest.mark.parametrize("variant, name", [(variant, name) for name, bug in planted.BUGS.items() for variant in bug.seen if variant])
def test_a_planted_bug_is_seen(variant: str, name: str) -> None:
    assert planted.BUGS[name].seen[variant] in sanitized.run(variant, str(HERE / "planted.py"), name)


@pytest.mark.parametrize("variant", ["address", "thread"])
@pytest.mark.parametrize("name", planted.SOUND)
def test_where_nothing_is_wrong_nothing_is_seen(variant: str, name: str) -> None:
    assert sanitized.run(variant, str(HERE / "planted.py"), name) == "right\n\n\nexit 0"
