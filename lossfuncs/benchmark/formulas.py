"""How an expert writes each loss for each peer.

Each `*_formulas()` maps a problem to the ways of writing `f(y_true, y_pred)`: more than one where it depends on the shape which is
fastest; all are raced, and the fastest counts. A problem is a name of the table, " from logits" behind it where that applies,
"value_and_grad " before it for the gradient of the mean, " total" behind it for the mean alone; where a peer has no formula for
these two, the mean is taken and differentiated by the peer itself. All follow Keras' definitions: probabilities are clipped to
[1e-7, 1 - 1e-7], `categorical_crossentropy` normalises its rows first, the first of equal maxima is the predicted class, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Formula = Callable[[Any, Any], Any]
Formulas = dict[str, tuple[Formula, ...]]

EPSILON = 1e-7
LOG_2 = math.log(2.0)


def _elementwise(xp: Any) -> Formulas:
    """What NumPy and jax write the same way."""

    def mean_absolute_percentage_error(t: Any, p: Any) -> Any:
        return 100 * (xp.abs(t - p) / xp.maximum(xp.abs(t), EPSILON)).mean(-1)

    def huber(t: Any, p: Any) -> Any:
        e = xp.abs(p - t)
        q = xp.minimum(e, 1)
        return (q * (e - 0.5 * q)).mean(-1)

    def log_cosh(t: Any, p: Any) -> Any:
        e = xp.abs(p - t)
        return (e + xp.log1p(xp.exp(-2 * e)) - LOG_2).mean(-1)

    def binary_crossentropy(t: Any, p: Any) -> Any:
        q = xp.clip(p, EPSILON, 1 - EPSILON)
        return -(t * xp.log(q) + (1 - t) * xp.log(1 - q)).mean(-1)

    own = (mean_absolute_percentage_error, huber, log_cosh, binary_crossentropy)
    return {formula.__name__: (formula,) for formula in own}


def numpy_formulas(np: Any = np) -> Formulas:
    """For NumPy, or for what has its functions: CuPy."""
    vecdot = getattr(np, "vecdot", lambda x, y: (x * y).sum(-1))

    def logsumexp(p: Array) -> Any:
        m = p.max(-1, keepdims=True)
        shifted = p - m
        return np.log(np.exp(shifted, out=shifted).sum(-1)) + m[..., 0]

    def picked(t: Array, p: Array) -> Any:
        return p[np.arange(len(t)), t]

    def mean_squared_error(t: Array, p: Array) -> Any:
        e = p - t
        return vecdot(e, e) / e.shape[-1]

    def mean_squared_error_total(t: Array, p: Array) -> Any:
        e = (p - t).ravel()
        return vecdot(e, e) / e.size

    def cosine_similarity(t: Array, p: Array) -> Any:
        def scale(x: Array) -> Any:
            return 1 / np.maximum(np.sqrt(vecdot(x, x)), EPSILON)

        return -vecdot(t, p) * scale(t) * scale(p)

    def logistic(t: Array, p: Array) -> Any:
        return (np.maximum(p, 0) - t * p + np.log1p(np.exp(-np.abs(p)))).mean(-1)

    def categorical_crossentropy(t: Array, p: Array) -> Any:
        q = np.clip(p / p.sum(-1, keepdims=True), EPSILON, 1 - EPSILON)
        return -vecdot(t, np.log(q, out=q))

    def kl_divergence(t: Array, p: Array) -> Any:
        a, b = np.clip(t, EPSILON, 1), np.clip(p, EPSILON, 1)
        return vecdot(a, np.log(a / b))

    def mean_squared_error_gradient(t: Array, p: Array) -> tuple[Any, Array]:
        e = p - t
        return np.vdot(e, e) / e.size, np.multiply(e, 2 / e.size, out=e)

    def logistic_gradient(t: Array, p: Array) -> tuple[Any, Array]:
        u = np.exp(-np.abs(p))
        value = (np.maximum(p, 0) - t * p + np.log1p(u)).mean()
        return value, (np.where(p >= 0, 1, u) / (1 + u) - t) / p.size

    def sparse_gradient(t: Array, p: Array) -> tuple[Any, Array]:
        rows = np.arange(len(t))
        g = p - p.max(-1, keepdims=True)
        label = g[rows, t]
        total = np.exp(g, out=g).sum(-1, keepdims=True)
        g /= total * len(t)
        g[rows, t] -= 1 / len(t)
        return (np.log(total[:, 0]) - label).mean(), g

    return _elementwise(np) | {
        "mean_squared_error total": (mean_squared_error_total,),
        "mean_squared_error": (mean_squared_error,),
        "binary_crossentropy from logits": (logistic,),
        "categorical_crossentropy": (categorical_crossentropy,),
        "categorical_crossentropy from logits": (lambda t, p: logsumexp(p) * t.sum(-1) - vecdot(t, p),),
        "sparse_categorical_crossentropy from logits": (lambda t, p: logsumexp(p) - picked(t, p),),
        "kl_divergence": (kl_divergence,),
        "cosine_similarity": (cosine_similarity,),
        "categorical_hinge": (lambda t, p: np.maximum(((1 - t) * p).max(-1) - vecdot(t, p) + 1, 0),),
        "categorical_accuracy": (lambda t, p: t.argmax(-1) == p.argmax(-1),),
        "sparse_categorical_accuracy": (lambda t, p: p.argmax(-1) == t,),
        "sparse_top_k_categorical_accuracy": (lambda t, p: np.count_nonzero(p > picked(t, p)[:, None], -1) < 5,),
        "value_and_grad mean_squared_error": (mean_squared_error_gradient,),
        "value_and_grad binary_crossentropy from logits": (logistic_gradient,),
        "value_and_grad sparse_categorical_crossentropy from logits": (sparse_gradient,),
    }


def torch_formulas() -> Formulas:
    """For eager torch: as few operators as possible, in place where that saves a pass."""
    import torch
    import torch.nn.functional as F
    from torch.linalg import vecdot

    def mean_absolute_percentage_error(t: Any, p: Any) -> Any:
        return 100 * (t - p).div_(t.abs().clamp_min_(EPSILON)).abs_().mean(-1)

    def binary_crossentropy(t: Any, p: Any) -> Any:
        return F.binary_cross_entropy(p.clamp(EPSILON, 1 - EPSILON), t, reduction="none").mean(-1)

    def binary_crossentropy_arithmetic(t: Any, p: Any) -> Any:
        q = p.clamp(EPSILON, 1 - EPSILON)
        return -torch.lerp((1 - q).log_(), q.log_(), t).mean(-1)

    def logistic(t: Any, p: Any) -> Any:
        return F.binary_cross_entropy_with_logits(p, t, reduction="none").mean(-1)

    def categorical_crossentropy(t: Any, p: Any) -> Any:
        return -vecdot(t, (p / p.sum(-1, keepdim=True)).clamp_(EPSILON, 1 - EPSILON).log_())

    def cross_entropy(t: Any, p: Any) -> Any:
        return F.cross_entropy(p, t, reduction="none")

    def dense_logsumexp(t: Any, p: Any) -> Any:
        return p.logsumexp(-1) * t.sum(-1) - vecdot(t, p)

    def sparse_logsumexp(t: Any, p: Any) -> Any:
        return p.logsumexp(-1) - p.gather(-1, t[:, None])[:, 0]

    def kl_divergence(t: Any, p: Any) -> Any:
        a, b = t.clamp(EPSILON, 1), p.clamp(EPSILON, 1)
        return vecdot(a, (a / b).log_())

    def cosine_similarity(t: Any, p: Any) -> Any:
        def norm(x: Any) -> Any:
            return torch.linalg.vector_norm(x, dim=-1).clamp_min_(EPSILON)

        return -vecdot(t, p) / (norm(t) * norm(p))

    def log_cosh(t: Any, p: Any) -> Any:
        e = (p - t).abs_()
        return (e + e.mul(-2).exp_().log1p_()).mean(-1) - LOG_2

    def categorical_hinge(t: Any, p: Any) -> Any:
        right = t * p
        return ((p - right).amax(-1) - right.sum(-1) + 1).clamp_min_(0)

    def top_k(t: Any, p: Any) -> Any:
        return (p > p.gather(-1, t[:, None])).sum(-1) < 5

    def gradient_of(loss: Formula) -> Formula:
        def value_and_grad(t: Any, p: Any) -> Any:
            p = p.detach().requires_grad_()
            value = loss(p, t)
            return value.detach(), torch.autograd.grad(value, p)[0]

        return value_and_grad

    return {
        "mean_squared_error total": (lambda t, p: F.mse_loss(p, t),),
        "mean_squared_error": (lambda t, p: F.mse_loss(p, t, reduction="none").mean(-1),),
        "mean_absolute_percentage_error": (mean_absolute_percentage_error,),
        "huber": (lambda t, p: F.huber_loss(p, t, reduction="none").mean(-1),),
        "binary_crossentropy": (binary_crossentropy, binary_crossentropy_arithmetic),
        "binary_crossentropy from logits": (logistic,),
        "categorical_crossentropy": (categorical_crossentropy,),
        "categorical_crossentropy from logits": (cross_entropy, dense_logsumexp),
        "sparse_categorical_crossentropy from logits": (cross_entropy, sparse_logsumexp),
        "kl_divergence": (kl_divergence,),
        "cosine_similarity": (cosine_similarity,),
        "log_cosh": (log_cosh,),
        "categorical_hinge": (categorical_hinge,),
        "categorical_accuracy": (lambda t, p: t.argmax(-1) == p.argmax(-1),),
        "sparse_categorical_accuracy": (lambda t, p: p.argmax(-1) == t,),
        "sparse_top_k_categorical_accuracy": (top_k,),
        "value_and_grad mean_squared_error": (gradient_of(F.mse_loss),),
        "value_and_grad binary_crossentropy from logits": (gradient_of(F.binary_cross_entropy_with_logits),),
        "value_and_grad sparse_categorical_crossentropy from logits": (gradient_of(F.cross_entropy),),
    }


def compiled_formulas() -> Formulas:
    """For torch.compile: arithmetic that fuses into one loop, beside the packaged operator where that is as good."""
    import torch
    import torch.nn.functional as F

    def mean_absolute_percentage_error(t: Any, p: Any) -> Any:
        return 100 * ((t - p).abs() / t.abs().clamp_min(EPSILON)).mean(-1)

    def binary_crossentropy(t: Any, p: Any) -> Any:
        q = p.clamp(EPSILON, 1 - EPSILON)
        return -(t * q.log() + (1 - t) * (1 - q).log()).mean(-1)

    def logistic(t: Any, p: Any) -> Any:
        return (p.clamp_min(0) - t * p + torch.log1p(torch.exp(-p.abs()))).mean(-1)

    def categorical_crossentropy(t: Any, p: Any) -> Any:
        return -(t * (p / p.sum(-1, keepdim=True)).clamp(EPSILON, 1 - EPSILON).log()).sum(-1)

    def cross_entropy(t: Any, p: Any) -> Any:
        return F.cross_entropy(p, t, reduction="none")

    def dense_logsumexp(t: Any, p: Any) -> Any:
        return p.logsumexp(-1) * t.sum(-1) - (t * p).sum(-1)

    def sparse_logsumexp(t: Any, p: Any) -> Any:
        return p.logsumexp(-1) - p.gather(-1, t[:, None])[:, 0]

    def kl_divergence(t: Any, p: Any) -> Any:
        a, b = t.clamp(EPSILON, 1), p.clamp(EPSILON, 1)
        return (a * (a / b).log()).sum(-1)

    def cosine_similarity(t: Any, p: Any) -> Any:
        def scale(x: Any) -> Any:
            return (x * x).sum(-1).clamp_min(EPSILON**2).rsqrt()

        return -(t * p).sum(-1) * scale(t) * scale(p)

    def log_cosh(t: Any, p: Any) -> Any:
        e = (p - t).abs()
        return (e + torch.log1p(torch.exp(-2 * e)) - LOG_2).mean(-1)

    def categorical_hinge(t: Any, p: Any) -> Any:
        return (((1 - t) * p).amax(-1) - (t * p).sum(-1) + 1).clamp_min(0)

    def unbeaten(t: Any, p: Any) -> Any:
        """argmax(p) == t, by comparisons alone: no class is above the label, and none before it is its equal."""
        label = p.gather(-1, t[:, None])
        before = torch.arange(p.shape[-1], device=p.device) < t[:, None]
        return ((p > label) | ((p == label) & before)).sum(-1, dtype=torch.float32) == 0

    def top_k(t: Any, p: Any) -> Any:
        return (p > p.gather(-1, t[:, None])).sum(-1, dtype=torch.float32) < 5

    def gradient_of(loss: Formula) -> Formula:
        compute = torch.func.grad_and_value(loss)

        def value_and_grad(t: Any, p: Any) -> Any:
            gradient, value = compute(p, t)
            return value, gradient

        return value_and_grad

    return torch_formulas() | {
        "mean_absolute_percentage_error": (mean_absolute_percentage_error,),
        "binary_crossentropy": (binary_crossentropy,),
        "binary_crossentropy from logits": (logistic,),
        "categorical_crossentropy": (categorical_crossentropy,),
        "categorical_crossentropy from logits": (cross_entropy, dense_logsumexp),
        "sparse_categorical_crossentropy from logits": (cross_entropy, sparse_logsumexp),
        "kl_divergence": (kl_divergence,),
        "cosine_similarity": (cosine_similarity,),
        "log_cosh": (log_cosh,),
        "categorical_hinge": (categorical_hinge,),
        "categorical_accuracy": (lambda t, p: t.argmax(-1) == p.argmax(-1), lambda t, p: unbeaten(t.argmax(-1), p)),
        "sparse_categorical_accuracy": (lambda t, p: p.argmax(-1) == t, unbeaten),
        "sparse_top_k_categorical_accuracy": (top_k,),
        "value_and_grad mean_squared_error": (gradient_of(F.mse_loss),),
        # softplus, because autograd takes another subgradient than sigmoid(0) through `logistic` at p == 0.
        "value_and_grad binary_crossentropy from logits": (gradient_of(lambda p, t: (F.softplus(p) - t * p).mean()),),
        "value_and_grad sparse_categorical_crossentropy from logits": (
            gradient_of(F.cross_entropy), gradient_of(lambda p, t: sparse_logsumexp(t, p).mean()),
        ),
    }


def jax_formulas() -> Formulas:
    """For jax.jit."""
    import jax
    import jax.numpy as jnp

    def cosine_similarity(t: Any, p: Any) -> Any:
        def scale(x: Any) -> Any:
            return jax.lax.rsqrt(jnp.maximum((x * x).sum(-1), EPSILON**2))

        return -(t * p).sum(-1) * scale(t) * scale(p)

    def logistic(t: Any, p: Any) -> Any:
        return jnp.maximum(p, 0) - t * p + jnp.log1p(jnp.exp(-jnp.abs(p)))

    def logistic_gradient(t: Any, p: Any) -> Any:
        """By hand: autodiff of `logistic` takes another subgradient than sigmoid(0) at p == 0."""
        return logistic(t, p).mean(), (jax.nn.sigmoid(p) - t) / p.size

    def categorical_crossentropy(t: Any, p: Any) -> Any:
        return -(t * jnp.log(jnp.clip(p / p.sum(-1, keepdims=True), EPSILON, 1 - EPSILON))).sum(-1)

    def dense_logsumexp(t: Any, p: Any) -> Any:
        return jax.nn.logsumexp(p, -1) * t.sum(-1) - (t * p).sum(-1)

    def dense_log_softmax(t: Any, p: Any) -> Any:
        return -(t * jax.nn.log_softmax(p, -1)).sum(-1)

    def picked(t: Any, p: Any) -> Any:
        return jnp.take_along_axis(p, t[:, None], -1)

    def sparse(t: Any, p: Any) -> Any:
        return jax.nn.logsumexp(p, -1) - picked(t, p)[:, 0]

    def kl_divergence(t: Any, p: Any) -> Any:
        a, b = jnp.clip(t, EPSILON, 1), jnp.clip(p, EPSILON, 1)
        return (a * jnp.log(a / b)).sum(-1)

    def unbeaten(t: Any, p: Any) -> Any:
        """argmax(p) == t, by comparisons alone: no class is above the label, and none before it is its equal."""
        label = picked(t, p)
        before = jnp.arange(p.shape[-1]) < t[:, None]
        return ((p > label) | ((p == label) & before)).sum(-1) == 0

    def gradient_of(loss: Formula) -> Formula:
        function: Formula = jax.value_and_grad(lambda t, p: loss(t, p).mean(), argnums=1)
        return function

    return _elementwise(jnp) | {
        "mean_squared_error total": (lambda t, p: jnp.square(p - t).mean(),),
        "mean_squared_error": (lambda t, p: jnp.square(p - t).mean(-1),),
        "binary_crossentropy from logits": (lambda t, p: logistic(t, p).mean(-1),),
        "categorical_crossentropy": (categorical_crossentropy,),
        "categorical_crossentropy from logits": (dense_logsumexp, dense_log_softmax),
        "sparse_categorical_crossentropy from logits": (sparse,),
        "kl_divergence": (kl_divergence,),
        "cosine_similarity": (cosine_similarity,),
        "categorical_hinge": (lambda t, p: jnp.maximum(((1 - t) * p).max(-1) - (t * p).sum(-1) + 1, 0),),
        "categorical_accuracy": (lambda t, p: t.argmax(-1) == p.argmax(-1), lambda t, p: unbeaten(t.argmax(-1), p)),
        "sparse_categorical_accuracy": (lambda t, p: p.argmax(-1) == t, unbeaten),
        "sparse_top_k_categorical_accuracy": (lambda t, p: (p > picked(t, p)).sum(-1) < 5,),
        "value_and_grad mean_squared_error": (gradient_of(lambda t, p: jnp.square(p - t)),),
        "value_and_grad binary_crossentropy from logits": (logistic_gradient, gradient_of(
            lambda t, p: jax.nn.softplus(p) - t * p)),
        "value_and_grad sparse_categorical_crossentropy from logits": (gradient_of(sparse),),
    }


def sklearn_formulas(threads: int) -> Formulas:
    """scikit-learn has few: its metrics average over the batch; its losses by sample are those it trains with."""
    from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss
    from sklearn.metrics import mean_squared_error
    from sklearn.metrics.pairwise import paired_cosine_distances

    def logistic(t: Array, p: Array) -> Any:
        if p.shape[1] != 1:
            raise NotImplementedError("HalfBinomialLoss takes one output a sample")
        return HalfBinomialLoss().loss(t[:, 0], p[:, 0], n_threads=threads)

    def sparse(t: Array, p: Array) -> Any:
        return HalfMultinomialLoss(n_classes=p.shape[1]).loss(t, p, n_threads=threads)

    def sparse_gradient(t: Array, p: Array) -> tuple[Any, Array]:
        weight = np.full(len(t), 1 / len(t), np.float32)
        value, gradient = HalfMultinomialLoss(n_classes=p.shape[1]).loss_gradient(
            t, p, sample_weight=weight, n_threads=threads)
        return value.sum(), gradient

    return {
        "mean_squared_error total": (mean_squared_error,),
        "binary_crossentropy from logits": (logistic,),
        "sparse_categorical_crossentropy from logits": (sparse,),
        "cosine_similarity": (lambda t, p: paired_cosine_distances(t, p) - 1,),
        "value_and_grad sparse_categorical_crossentropy from logits": (sparse_gradient,),
    }
