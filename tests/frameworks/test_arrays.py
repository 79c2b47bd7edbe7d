"""Arrays of any kind, and what is said where a framework is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas
import pytest
import torch

import lossfuncs

T = np.arange(12.0).reshape(4, 3)
P = T[::-1] + 0.5


class Exported:
    """An array that knows DLPack alone."""

    def __init__(self, x: np.ndarray[Any, Any]) -> None:
        self.x = x

    def __dlpack__(self, **options: Any) -> Any:
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.x.__dlpack_device__()


KINDS = {
    "list": lambda x: x.tolist(), "data frame": pandas.DataFrame, "torch": lambda x: torch.from_numpy(x.copy()), "DLPack": Exported,
    "jax": lambda x: jnp.asarray(x, jnp.float32), "strided torch": lambda x: torch.from_numpy(np.repeat(x, 2, axis=1).copy())[:, ::2],
}  # fmt: skip


@pytest.mark.parametrize("predictions", KINDS)
@pytest.mark.parametrize("targets", KINDS)
def test_any_two_kinds_go_together_and_y_pred_says_what_comes_out(targets: str, predictions: str) -> None:
    found = lossfuncs.mean_squared_error(KINDS[targets](T), KINDS[predictions](P))
    kind = torch.Tensor if "torch" in predictions else jnp.ndarray if predictions == "jax" else np.ndarray
    assert isinstance(found, kind)
    np.testing.assert_allclose(np.asarray(found), lossfuncs.mean_squared_error(T, P), rtol=1e-6)


def test_bfloat16_crosses_every_border() -> None:
    t, p = T.astype(ml_dtypes.bfloat16), P.astype(ml_dtypes.bfloat16)
    wanted = lossfuncs.mean_squared_error(t, p)
    tensors = [torch.from_numpy(np.float32(x)).bfloat16() for x in (t, p)]
    arrays = [jnp.asarray(x) for x in (t, p)]
    assert lossfuncs.mean_squared_error(*tensors).float().tolist() == wanted.tolist()
    for pair in (arrays, (tensors[0], arrays[1]), (t, arrays[1])):
        found = lossfuncs.mean_squared_error(*pair)
        assert found.dtype == jnp.bfloat16 and np.array_equal(found, wanted)
    assert lossfuncs.mean_squared_error(tensors[0], p).dtype == t.dtype


def test_a_tensor_is_read_where_it_lies() -> None:
    from lossfuncs.call import array

    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros(4, dtype=dtype)
        view = array("y_pred", x)
        x += 1
        assert (view == 1).all()


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_missing_framework_is_named_with_its_extra_and_never_imported_unasked(framework: str) -> None:
    program = f"""
import sys
import lossfuncs, numpy
lossfuncs.mean_squared_error(numpy.ones(3), [1, 2, 3])
assert not {{"torch", "jax", "tensorflow"}} & set(sys.modules)
sys.modules["{framework}"] = None
try:
    import lossfuncs.frameworks.{framework}
except ImportError as error:
    assert 'pip install "lossfuncs[{framework}]"' in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True)
