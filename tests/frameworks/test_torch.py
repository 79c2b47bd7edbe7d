"""The losses on tensors of PyTorch: the same numbers as on arrays, through everything that PyTorch does to a function."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import DIFFERENTIABLE, OPTIONS, Entry, case, inputs
from torch.utils.checkpoint import checkpoint

import lossfuncs
from lossfuncs.frameworks import torch as lt
from lossfuncs.frameworks.bound import bind
from lossfuncs.table import LOSSES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # by torch's own compiler and transforms

NAMES = {entry.name for entry in LOSSES}
LOGITS = {"from_logits": True}
EACH = [*(x for x in DIFFERENTIABLE if x.values[0].name in NAMES and "metrics" not in x.id),
        *(case(entry, options) for entry in LOSSES for options in OPTIONS.get(entry.name, ()) if "from_logits" in options)]  # fmt: skip
SOFTMAX = ("categorical_crossentropy", "sparse_categorical_crossentropy")


def draw(entry: Entry, options: dict[str, Any], shape: tuple[int, ...] = (5, 6)) -> tuple[torch.Tensor, torch.Tensor]:
    t, p = inputs(entry, options, shape, np.float32)
    return torch.from_numpy(np.array(t)), torch.from_numpy(np.array(p))


def smooth(entry: Entry, options: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 data away from kinks and clips."""
    rng = np.random.default_rng(3)
    t, p = inputs(entry, options, (4, 5), np.float64, seed=2)
    if entry.predictions in ("real", "logits") or options.get("from_logits"):
        p = rng.normal(size=p.shape) + np.where(rng.random(p.shape) < 0.5, -0.3, 0.3)
    else:
        p = rng.uniform(0.2, 0.8, p.shape)
    return torch.from_numpy(np.array(t)), torch.from_numpy(p)


def second_derivative(entry: Entry, options: dict[str, Any]) -> str:
    loss = bind(entry.function, options, "mean")
    if loss.is_softmax:
        return "softmax"
    return "diagonal" if loss.rows.pointwise and loss.rows.curve is not None else "none"


@pytest.mark.parametrize("reduction", [None, "mean", "sum"])
@pytest.mark.parametrize("entry, options", EACH)
def test_values_and_gradients_are_those_on_arrays(entry: Entry, options: dict[str, Any], reduction: str | None) -> None:
    t, p = draw(entry, options)
    value, gradient = lossfuncs.value_and_grad(entry.function, t.numpy(), p.numpy(), reduction=reduction, **options)
    x = p.clone().requires_grad_()
    found = entry.function(t, x, reduction=reduction, **options)
    assert found.dtype == torch.float32
    assert np.array_equal(found.detach().numpy(), np.float32(value), equal_nan=True)
    found.backward(torch.ones_like(found))
    assert np.array_equal(x.grad.numpy(), gradient, equal_nan=True)
    again = getattr(lt, entry.name)(p, t, reduction=reduction, **options)
    assert torch.equal(again, found.detach()) and not again.requires_grad


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """For what only concerns torch: the reference computes, which nobody has to compile."""
    with lossfuncs.backend("numpy"):
        yield


@pytest.mark.parametrize("entry, options", EACH)
def test_first_and_second_derivatives_are_right_or_refused(entry: Entry, options: dict[str, Any], uncompiled: None) -> None:
    t, p = smooth(entry, options)
    p.requires_grad_()
    function = functools.partial(getattr(lt, entry.name), target=t, **options)
    for reduction in (None, "mean"):
        assert torch.autograd.gradcheck(functools.partial(function, reduction=reduction), (p,))
        if second_derivative(entry, options) != "none":
            assert torch.autograd.gradgradcheck(functools.partial(function, reduction=reduction), (p,))
        else:
            (gradient,) = torch.autograd.grad(function(p, reduction="sum"), p, create_graph=True)
            with pytest.raises(NotImplementedError, match=f"{entry.name} has no second derivative"):
                gradient.sum().backward()


def test_values_that_depend_on_all_rows_have_a_gradient_together() -> None:
    entry = next(entry for entry in LOSSES if entry.name == "circle")
    t, p = smooth(entry, {})
    p = F.normalize(p).requires_grad_()
    weight, upstream = torch.rand(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)

    def values(p: torch.Tensor) -> torch.Tensor:
        return lossfuncs.circle(t, p, sample_weight=weight, gamma=2.0)

    assert torch.autograd.gradcheck(values, (p,))
    wanted = lossfuncs.value_and_grad("circle", t, p.detach(), upstream=upstream, sample_weight=weight, gamma=2.0)[1]
    torch._dynamo.reset()
    compiled = torch.compile(values, fullgraph=True, backend="aot_eager")
    for function in (values, compiled):
        assert torch.equal(torch.autograd.grad(function(p), p, upstream)[0], wanted)
    (jacobian,) = torch.autograd.functional.jacobian(values, (p,))
    assert torch.equal(torch.func.jacrev(values)(p.detach()), jacobian)
    (gradient,) = torch.autograd.grad(values(p), p, upstream, create_graph=True)
    with pytest.raises(NotImplementedError, match="circle has no second derivative"):
        gradient.sum().backward()


def test_a_third_derivative_is_right_or_refused() -> None:
    entry = next(entry for entry in LOSSES if entry.name == "log_cosh")
    t, p = smooth(entry, {})
    p.requires_grad_()
    (first,) = torch.autograd.grad(lt.log_cosh(p, t), p, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), p, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        second.sum().backward()
    labels = torch.tensor([0, 1, 2, 4])

    def third(loss: Any) -> torch.Tensor:
        (first,) = torch.autograd.grad(loss(p, labels), p, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), p, create_graph=True)
        return torch.autograd.grad((second**2).sum(), p)[0]

    torch.testing.assert_close(third(lt.cross_entropy), third(F.cross_entropy))


def check_compiled(entry: Entry, options: dict[str, Any], backend: str, reduction: str | None, dynamic: bool | None = None) -> None:
    torch._dynamo.reset()
    function = functools.partial(getattr(lt, entry.name), reduction=reduction, **options)
    compiled = torch.compile(lambda p, t: function(p * 1.0, t).sum(), fullgraph=True, backend=backend, dynamic=dynamic)
    for rows in (5, 7) if dynamic else (5,):
        t, p = draw(entry, options, (rows, 6))
        p.requires_grad_()
        found, wanted = compiled(p, t), function(p, t).sum()
        torch.testing.assert_close(found, wanted, rtol=1e-6 if reduction is None else 0.0, atol=0.0)  # a sum is inductor's own
        assert torch.equal(torch.autograd.grad(found, p)[0], torch.autograd.grad(wanted, p)[0])


@pytest.mark.parametrize("entry, options", EACH)
def test_every_loss_compiles_as_one_graph(entry: Entry, options: dict[str, Any], uncompiled: None) -> None:
    check_compiled(entry, options, "aot_eager", "mean")


@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("dynamic", [None, True])
def test_inductor_and_dynamic_shapes(reduction: str | None, dynamic: bool | None) -> None:
    entry = next(entry for entry in LOSSES if entry.name == "sparse_categorical_crossentropy")
    check_compiled(entry, LOGITS, "inductor", reduction, dynamic)


@pytest.mark.parametrize("reduction", [None, "mean"])
@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "huber"])
def test_operators_keep_what_torch_asks_of_them(name: str, reduction: str | None) -> None:
    entry = next(entry for entry in LOSSES if entry.name == name)
    options = LOGITS if "sparse" in name else {}
    t, p = draw(entry, options)
    text = bind(entry.function, options, reduction).text
    torch.library.opcheck(torch.ops.lossfuncs.loss, (t, p, None, text))
    torch.library.opcheck(torch.ops.lossfuncs.value_and_gradient, (t, p, torch.rand(5), text))
    upstream = torch.ones(() if reduction else 5)
    torch.library.opcheck(torch.ops.lossfuncs.curvature, (t, p, None, upstream, text))
    torch.library.opcheck(torch.ops.lossfuncs.gradient, (t, p, torch.rand(5), upstream, text))


TRANSFORMED = {
    "cross entropy": (lt.cross_entropy, F.cross_entropy, "labels"),
    "cross entropy of one sample": (lt.cross_entropy, F.cross_entropy, "label"),
    "squared error": (lt.mse_loss, F.mse_loss, "real"),
    "summed huber": (functools.partial(lt.huber, reduction="sum"), lambda p, t: F.huber_loss(p, t, reduction="sum") / p.shape[-1], "real"),
    "ignored classes": (functools.partial(lt.cross_entropy, ignore_index=2), functools.partial(F.cross_entropy, ignore_index=2), "labels"),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_of_torch_func(name: str) -> None:
    ours, theirs, kind = TRANSFORMED[name]
    torch.manual_seed(0)
    p = torch.randn((3, 6) if kind == "label" else (3, 4, 6), dtype=torch.float64)
    t = torch.randn_like(p) if kind == "real" else torch.randint(0, 6, p.shape[:-1])
    close = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(torch.func.grad(ours)(p[0], t[0]), torch.func.grad(theirs)(p[0], t[0]))
    close(torch.vmap(ours)(p, t), torch.vmap(theirs)(p, t))
    close(torch.vmap(ours, (0, None))(p, t[0]), torch.vmap(theirs, (0, None))(p, t[0]))
    close(torch.vmap(torch.func.grad(ours))(p, t), torch.vmap(torch.func.grad(theirs))(p, t))
    close(torch.func.jvp(lambda x: ours(x, t[0]), (p[0],), (p[1],)), torch.func.jvp(lambda x: theirs(x, t[0]), (p[0],), (p[1],)))
    hessian = torch.func.hessian(theirs)(p[0], t[0])
    close(torch.func.hessian(ours)(p[0], t[0]), hessian)
    close(torch.func.jacrev(torch.func.jacrev(ours))(p[0], t[0]), hessian)


def test_weights_move_with_their_examples_under_vmap() -> None:
    p, t, w = torch.randn(3, 4, 6), torch.randn(3, 4, 6), torch.rand(3, 4)
    found = torch.vmap(lambda p, t, w: lt.log_cosh(p, t, sample_weight=w))(p, t, w)
    torch.testing.assert_close(found, torch.stack([lt.log_cosh(*x[:2], sample_weight=x[2]) for x in zip(p, t, w, strict=True)]))


def test_autocast_checkpoint_and_export() -> None:
    torch.manual_seed(0)
    layer, x, labels = torch.nn.Linear(4, 6), torch.randn(8, 4), torch.randint(0, 6, (8,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = lt.cross_entropy(layer(x), labels)
        wanted = F.cross_entropy(layer(x), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    loss.backward()
    assert layer.weight.grad.dtype == torch.float32
    p = torch.randn(8, 6, requires_grad=True)
    (plain,) = torch.autograd.grad(lt.cross_entropy(p, labels), p)
    assert torch.equal(torch.autograd.grad(checkpoint(lt.cross_entropy, p, labels, use_reentrant=False), p)[0], plain)
    module = lt.SparseCategoricalCrossentropy(from_logits=True)
    exported = torch.export.export(module, (p.detach(), labels)).module()
    assert torch.equal(exported(p.detach(), labels), module(p.detach(), labels))


def loss_of_item(i: int) -> torch.Tensor:
    return lt.huber(torch.full((4, 3), float(i)), torch.zeros(4, 3))


class Losses(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> torch.Tensor:
        return loss_of_item(i)


@pytest.mark.filterwarnings("ignore:os.fork")  # JAX's, where its tests ran in this process
def test_workers_of_a_data_loader_compute_losses() -> None:
    wanted = torch.stack([loss_of_item(i) for i in range(8)])  # kernels are running here before the workers are forked
    loader = torch.utils.data.DataLoader(Losses(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), wanted)


def test_backward_without_a_node() -> None:
    torch.manual_seed(0)
    layer, x, labels = torch.nn.Linear(4, 6), torch.randn(8, 4), torch.randint(0, 6, (8,))
    module = lt.SparseCategoricalCrossentropy(from_logits=True)
    wanted = module(layer(x), labels)
    wanted.backward()
    gradient, layer.weight.grad = layer.weight.grad, None
    logits = layer(x)
    assert torch.equal(module.backward_(logits, labels), wanted.detach())
    assert torch.equal(layer.weight.grad, gradient)
    torch.testing.assert_close(logits.detach(), torch.func.grad(F.cross_entropy)(layer(x).detach(), labels))
    with pytest.raises(ValueError, match="input is a leaf"):
        module.backward_(x.clone().requires_grad_(), labels)
    with pytest.raises(ValueError, match="input requires no gradient"):
        module.backward_(x, labels)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        lt.backward_("mse", torch.sigmoid(layer(x)), torch.rand(8, 6))


def test_an_in_place_gradient_is_not_written_to_a_leaf_that_needs_it() -> None:
    x, t = torch.randn(3, 4), torch.randn(3, 4)
    with pytest.raises(ValueError, match="out is a leaf that requires a gradient"):
        lossfuncs.value_and_grad("mse", t, x.requires_grad_(), out=x)
    wanted = lossfuncs.value_and_grad("mse", t, x)[1]
    y = x.detach().clone()
    assert lossfuncs.value_and_grad("mse", t, y, out=y)[1] is y
    assert torch.equal(y, wanted)


WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0, 1.5], dtype=torch.float64)
REAL = [("mse_loss", {}), ("mse_loss", {"weight": WEIGHT}), ("l1_loss", {}), ("l1_loss", {"weight": WEIGHT}),
        ("huber_loss", {"delta": 0.7}), ("huber_loss", {"weight": WEIGHT}),
        ("binary_cross_entropy", {}), ("binary_cross_entropy_with_logits", {}),
        ("binary_cross_entropy_with_logits", {"weight": WEIGHT})]  # fmt: skip
CLASSES = [{}, {"weight": WEIGHT}, {"ignore_index": 3}, {"weight": WEIGHT, "ignore_index": 1}, {"label_smoothing": 0.2},
           {"label_smoothing": 0.2, "ignore_index": 2}]  # fmt: skip


def check_as_torch(name: str, p: torch.Tensor, t: torch.Tensor, options: dict[str, Any]) -> None:
    found, wanted = getattr(lt, name)(p, t, **options), getattr(F, name)(p, t, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    upstream = torch.rand_like(wanted)
    torch.testing.assert_close(*(torch.autograd.grad(x, p, upstream)[0] for x in (found, wanted)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name, options", REAL)
def test_losses_of_elements_are_torchs(name: str, options: dict[str, Any], reduction: str) -> None:
    torch.manual_seed(0)
    for shape in ((5, 6), (2, 3, 6)):
        given = {key: x.expand(shape) if key == "weight" else x for key, x in options.items()}
        p = (torch.rand if name == "binary_cross_entropy" else torch.randn)(shape, dtype=torch.float64, requires_grad=True)
        check_as_torch(name, p, torch.rand(shape, dtype=torch.float64), {**given, "reduction": reduction})


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("options", CLASSES, ids=lambda options: "-".join(options) or "plain")
def test_cross_entropy_is_torchs(options: dict[str, Any], reduction: str) -> None:
    torch.manual_seed(0)
    for shape in ((6,), (7, 6), (4, 6, 3), (2, 6, 3, 2)):
        p = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        axis = 1 if len(shape) > 1 else 0
        labels = torch.randint(0, 6, shape[:axis] + shape[axis + 1 :])
        if options.get("ignore_index") is not None and labels.ndim == 0:
            labels = labels * 0
        check_as_torch("cross_entropy", p, labels, {**options, "reduction": reduction})
        if "ignore_index" not in options:
            check_as_torch("cross_entropy", p, torch.softmax(torch.randn_like(p), axis), {**options, "reduction": reduction})


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("options", [{"weight": WEIGHT}, {"label_smoothing": 0.2}], ids=lambda options: "-".join(options))
def test_cross_entropy_takes_class_numbers_of_any_type(options: dict[str, Any], kind: torch.dtype) -> None:
    """Of uint8 torch itself would take as many as there are weights for a mask."""
    p, labels = torch.randn(6, 6, dtype=torch.float64), torch.arange(1, 7) % 6
    torch.testing.assert_close(lt.cross_entropy(p, labels.to(kind), **options), F.cross_entropy(p, labels, **options))


def _own_mse(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return lt.mean_squared_error(p, t)


@pytest.mark.parametrize("how", ["eager", "graph", "func", "compiled"])
def test_a_scaled_loss_saves_the_gradient_of_float16(how: str, uncompiled: None) -> None:
    """As torch.amp.GradScaler has it: the gradient alone and the scale alone are out of float16's range, but not their product."""
    p, t, scale = torch.rand(500, 400), torch.rand(500, 400), 1 << 20
    half, target = p.half().requires_grad_(), t.half()
    wanted = 2.0 * (half.detach().double() - target.double()) * scale / p.numel()
    if how == "func":
        found = torch.func.grad(lambda x: _own_mse(x, target) * scale)(half.detach())
    else:
        loss = torch.compile(_own_mse, backend="aot_eager", fullgraph=True) if how == "compiled" else _own_mse
        (found,) = torch.autograd.grad(loss(half, target) * scale, half, create_graph=how == "graph")
    torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss"])
def test_modules_of_torchs_names_replace_torchs(name: str) -> None:
    p, t = torch.rand(4, 5), torch.rand(4, 5)
    ours, theirs = getattr(lt, name)(), getattr(torch.nn, name)()
    torch.testing.assert_close(ours(p, t), theirs(p, t))
    assert isinstance(ours, type(theirs))


@pytest.mark.parametrize("entry", LOSSES, ids=lambda entry: entry.name)
def test_every_loss_is_a_module(entry: Entry) -> None:
    names = [name for name in entry.aliases.split() if hasattr(lossfuncs.losses, name) and isinstance(getattr(lt, name, None), type)]
    assert len(names) == 1
    kwargs = {"q": 0.5} if "generalized" in entry.name else {}
    module = pickle.loads(pickle.dumps(getattr(lt, names[0])(reduction="sum", **kwargs)))
    assert repr(module) == f"{names[0]}({'q=0.5, ' if kwargs else ''}reduction='sum')"
    assert not list(module.parameters())


def test_half_data() -> None:
    torch.manual_seed(0)
    p, labels = torch.randn(16, 10), torch.randint(0, 10, (16,))
    for dtype in (torch.bfloat16, torch.float16):
        x = p.to(dtype).requires_grad_()
        loss = lt.cross_entropy(x, labels)
        loss.backward()
        exact = p.to(dtype).double().requires_grad_()
        wanted = F.cross_entropy(exact, labels)
        wanted.backward()
        assert loss.dtype == torch.float32 and x.grad.dtype == dtype
        assert loss.item() == np.float32(wanted.item())
        assert torch.equal(x.grad, exact.grad.to(dtype))
        assert lt.cross_entropy(x, labels, reduction="none").dtype == dtype
        assert lossfuncs.mean_squared_error(p.to(dtype), p.to(dtype)).dtype == dtype


def test_metrics_and_loss_objects_take_tensors() -> None:
    torch.manual_seed(0)
    p, labels = torch.rand(16, 10, requires_grad=True), torch.randint(0, 10, (16,))
    metric = lossfuncs.metrics.SparseCategoricalAccuracy()
    metric.update_state(labels, p)
    assert metric.result() == (p.argmax(1) == labels).double().mean()
    metric.update_state(labels, p.bfloat16())
    found = lossfuncs.sparse_categorical_accuracy(labels, p)
    assert isinstance(found, torch.Tensor) and not found.requires_grad
    loss = lossfuncs.losses.SparseCategoricalCrossentropy()(labels, p)
    loss.backward()
    assert torch.equal(p.grad, lossfuncs.value_and_grad("sparse_categorical_crossentropy", labels, p, reduction="mean")[1])


def test_a_users_own_loss_is_differentiable_and_compiles() -> None:
    pinball = lossfuncs.pointwise(
        lambda t, p, tau=0.5: max(tau * (t - p), (tau - 1) * (t - p)), slope=lambda t, p, tau=0.5: 1 - tau if p > t else -tau
    )
    p, t = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    pinball(t, p, tau=0.9, reduction="mean").backward()
    wanted, p.grad = p.grad, None
    torch.compile(lambda p: pinball(t, p, tau=0.9, reduction="mean"), fullgraph=True, backend="aot_eager")(p).backward()
    assert torch.equal(p.grad, wanted) and wanted.abs().sum() > 0


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda p, t: lt.huber(p, t[:3]), ValueError, r"target and input must have the same shape, got \(3, 5\) and \(4, 5\)"),
        (lambda p, t: lt.huber(p.detach().numpy(), t), TypeError, "input must be a tensor, got ndarray"),
        (lambda p, t: lt.huber(p, p * 2), ValueError, "target requires a gradient, but losses have one by input alone"),
        (lambda p, t: lt.huber(p.detach(), p), ValueError, "target requires a gradient, but losses have one by input alone"),
        (lambda p, t: lt.huber(p, t, sample_weight=p[:, 0] * 2), ValueError, "sample_weight requires a gradient"),
        (lambda p, t: lt.huber(p, t.to("meta")), ValueError, "target is on meta, but input is on cpu"),
        (lambda p, t: lt.huber(p.detach().to("meta"), t.to("meta")), TypeError, "it is on meta, and only tensors on the CPU"),
        (lambda p, t: lt.huber(p.detach().to_sparse(), t), TypeError, "input cannot be read .* sparse or quantized"),
        (lambda p, t: lt.huber(p.to(torch.complex64), t), TypeError, "input must hold real numbers, got dtype complex64"),
        (lambda p, t: lt.huber(p.detach().to(torch.float8_e5m2), t), TypeError, "input cannot be read"),
        (lambda p, t: lt.huber(p, t, delta=-1.0), ValueError, "delta must be a number >= 0"),
        (lambda p, t: lt.huber(p, t, detla=1.0), TypeError, "unexpected keyword argument 'detla'; did you mean 'delta'"),
        (lambda p, t: lt.huber(p, t, reduction="avg"), ValueError, "reduction must be one of"),
        (lambda p, t: lt.Huber(delta=-1.0), ValueError, "delta must be a number >= 0"),
        (lambda p, t: lt.Huber(detla=1.0), TypeError, "did you mean 'delta'"),
        (lambda p, t: lt.Huber(reduction="avg"), ValueError, "reduction must be one of"),
        (lambda p, t: lt.cross_entropy(p, torch.tensor([0, 1, 2, 5])), ValueError, r"target\[3\] is 5, but input has classes 0 to 4"),
        (lambda p, t: lt.mse_loss(p, t[:1]), ValueError, "target must have input's shape"),
        (lambda p, t: lossfuncs.value_and_grad("mse", t, p, out=np.zeros((4, 5))), ValueError, "out must be a tensor"),
        (lambda p, t: lossfuncs.losses.Huber()(t, p, mask=t[:, 0] > 0), TypeError, "must be an array of NumPy for a loss with a mask"),
        (lambda p, t: lossfuncs.losses.Huber(dtype="float16")(t, p), TypeError, "for a loss with a mask or a dtype, got Tensor"),
    ],
)
def test_bad_input_is_named_in_one_sentence(call: Any, error: type[Exception], sentence: str) -> None:
    p, t = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    with pytest.raises(error, match=sentence):
        call(p, t)


def test_the_readmes_examples_run(run_examples: Any) -> None:
    run_examples("torch")


def test_a_model_learns_the_digits_as_with_torchs_own_loss(digits: Any) -> None:
    labels, features = (torch.from_numpy(x) for x in digits)

    def curve(loss: Any) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
        optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)  # at 0.1 the last bits of torch's own losses lead apart
        found = []
        for step in range(120):
            batch = slice(step % 4 * 150, step % 4 * 150 + 150)
            optimizer.zero_grad()
            value = loss(model(features[batch]), labels[batch])
            value.backward()
            optimizer.step()
            found.append(value.item())
        return found

    ours, theirs = curve(lt.CrossEntropyLoss()), curve(torch.nn.CrossEntropyLoss())
    assert theirs[-1] < 0.3 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_compiler_is_imported_by_who_compiles() -> None:
    """It takes seconds, and once it is imported, process groups that were there before are never freed."""
    program = """
import sys
import torch
import lossfuncs
from lossfuncs.frameworks import torch as lt
p, t = torch.rand(4, 5, requires_grad=True), torch.rand(4, 5)
lt.huber(p, t).backward()
lt.Huber(delta=2.0)(p, t).backward()
lossfuncs.value_and_grad("mean_squared_error", t, p.detach())
lossfuncs.metrics.AUC().update_state(t.round(), p.detach())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
