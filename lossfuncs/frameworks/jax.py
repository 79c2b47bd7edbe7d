"""JAX: the losses on its arrays, under jit, grad, vmap and shard_map.

    loss = lossfuncs.huber(y_true, y_pred, delta=2.0, reduction="mean")
    jax.jit(jax.value_and_grad(lambda p: lossfuncs.huber(y_true, p, reduction="mean")))(y_pred)

Arrays outside of any transformation go to the kernels as they lie in memory. Under a transformation XLA calls the kernels through its
foreign function interface, on the CPU; value and gradient come from one pass over memory. `jax.pure_callback` is used where that
interface has changed. The second derivative exists for pointwise losses and for the cross-entropies from logits, where it is a JAX
expression that can be differentiated further; elsewhere NotImplementedError is raised, as it is for the third. Reduced values are of
y_pred's dtype, float32 for half data.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np

from .. import derivatives
from ..dispatch import current_backend, prepare
from ..call import array, same_rank
from ..problem import Array
from . import xla
from .arrays import missing
from .bound import Bound, bind, loss_of

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise missing("jax", error) from None


def to_numpy(x: Any) -> Array:
    """x's memory as a NumPy array; TypeError for a value that is only known when a transformed function runs."""
    if isinstance(x, jax.core.Tracer):
        raise TypeError("it is traced by a transformation of JAX, and here numbers are needed")
    return np.asarray(x)


def _value_dtype(loss: Bound, dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.floating):
        return jax.dtypes.canonicalize_dtype(np.float64)
    return jnp.promote_types(dtype, np.float32) if loss.reduced else dtype


# The calls that XLA makes


def _numbers(arguments: list[Any]) -> tuple[Array, Array, Array | None]:
    """Labels as int64, for which there is a short way."""
    t, p, *w = arguments
    return t.astype(np.int64) if t.dtype.kind in "iu" and t.ndim != p.ndim else t, p, w[0] if w else None


def _compute(attribute: str, arguments: list[Array], results: list[Array]) -> None:
    what, text = attribute[0], attribute[1:]
    loss, (t, p, w) = loss_of(text), _numbers(arguments)
    if what == "v":
        results[0][...] = loss.value(t, p, w)
    elif what == "g":
        value, results[1][...] = loss.value_and_gradient(t, p, w)
        results[0][...] = value
    else:
        results[0][...] = loss.curvature(t, p, w, None)


_handler = xla.handler(_compute)
_TARGET = "lossfuncs"


@functools.cache
def _has_ffi() -> bool:
    """Whether XLA's foreign functions work here."""
    try:
        jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_handler), platform="cpu", api_version=1)
    except Exception:  # of another version: there is a slower way
        return False
    return True


def _run(attribute: str, results: list[Any], *arguments: Any) -> Any:
    """The call, as XLA sees it."""
    small = _small(attribute, results, *arguments)
    if small is not None:
        return jax.ffi.ffi_call(small[0], results, vmap_method="sequential")(*arguments, **small[1])
    if _has_ffi():
        return jax.ffi.ffi_call(_TARGET, results, vmap_method="sequential")(*arguments, a=attribute)

    def callback(*given: Any) -> list[Array]:
        found = [np.empty(x.shape, x.dtype) for x in results]
        _compute(attribute, [np.asarray(x) for x in given], found)
        return found

    return jax.pure_callback(callback, results, *arguments, vmap_method="sequential")


SMALL = 1 << 15  # elements; of more, the kernels' threads are worth a call of Python


def _small(attribute: str, results: list[Any], *arguments: Any) -> tuple[str, dict[str, Any]] | None:
    """The compiled handler for these arguments, and its attributes, where they are so few that Python would cost more than the numbers."""
    loss, what = loss_of(attribute[1:]), attribute[0]
    if len(arguments) != 2 or what == "c" or loss.rows is None or not _has_ffi() or current_backend() != "numba":
        return None
    if math.prod(arguments[1].shape) > SMALL:
        return None
    from .xla_kernels import small  # with Numba

    t, p = (np.zeros(x.shape, x.dtype) for x in arguments)
    found = small(prepare(loss.function, t, p, loss.options, None, loss.reduction), t.dtype, int(what == "g"))
    return None if found is None else (_registered(found.address), found.attributes)


@functools.cache
def _registered(address: int) -> str:
    """The name under which XLA knows the handler at an address."""
    name = f"lossfuncs_{address:x}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(ctypes.c_void_p(address)), platform="cpu", api_version=1)
    return name
