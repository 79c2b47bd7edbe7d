"""What kernels are put together from, made LLVM in an eighth of the time that Numba's front end takes.

Numba reads a function's bytecode, infers types in passes over all of it, and lowers it: 12 ms for the smallest, and a kernel is made of 40.
The functions of this package that kernels inline are of a small Python, whose types are known from the start:

    values       float64, int64, truth values, addresses, tuples of these, and what is known beforehand, such as a closure's numbers
    statements   assignments, if, while, for ... in range(...) or in a tuple, return
    calls        of each other, of Numba's intrinsics, which most of the work is in, of functions that Numba compiles

So one walk over the syntax tree emits them. A variable has the type that it is given first. What is not of this kind, a user's function
to begin with, or has no source that is still its own, is left to Numba: each function by itself, called and calling likewise.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import inspect
import itertools
import linecache
import math
import operator
import types as python
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic, intrinsic

from . import target


class Beyond(Exception):
    """It is Numba's to compile."""


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is known beforehand: a number, a function, a module, None."""

    value: Any


@dataclass(frozen=True, slots=True)
class Typed:
    """A value of LLVM's, and its Numba type."""

    kind: Any
    ir: Any


Value: TypeAlias = "Known | Typed | tuple[Value, ...]"

FLOAT, INTEGER, TRUTH = types.float64, types.int64, types.boolean
WIDER = {(TRUTH, INTEGER), (TRUTH, FLOAT), (INTEGER, FLOAT), (types.float32, FLOAT)}  # what may be made of what without being asked for
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.USub: operator.neg,
    ast.Not: operator.not_,
}  # fmt: skip
COMPARISONS: dict[type, tuple[str, Callable[..., Any]]] = {
    ast.Lt: ("<", operator.lt), ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt), ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne),
}  # fmt: skip
ARITHMETIC = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}
BITS = {ast.BitAnd: "and_", ast.BitOr: "or_"}
CONTENT = "co_code", "co_consts", "co_names", "co_varnames", "co_freevars"  # of code objects: what is not a place
_serial = itertools.count()


def inline(function: Callable[..., Any]) -> Any:
    """What a kernel is put together from: never called from Python, but from functions like it and from what Numba compiles."""
    if config.DISABLE_JIT or not target.is_ours(function):
        return by_numba(function)

    def typing(context: Any, *kinds: Any) -> Any:
        names = ["context", *(f"x{i}" for i in range(len(kinds)))]
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        typing.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Numba looks at it when this has returned
        return Part.typed(function, context, kinds)

    typing.__name__ = typing.__qualname__ = function.__name__
    typing.part = function  # type: ignore[attr-defined]
    return intrinsic(typing)


def by_numba(function: Callable[..., Any]) -> Any:
    """Numba's dispatcher of a function that is inlined: it gets no wrapper for Python. A user's may look into an array, and outside."""
    checked = not target.is_ours(function)
    return target.jit(function, nogil=True, error_model="numpy", boundscheck=checked, forceinline=True, no_cpython_wrapper=True,
                      no_cfunc_wrapper=True)  # fmt: skip


def apart(typing: Any, context: Any, module: Any, body: Any, kinds: Sequence[Any], llvm: Sequence[Any]) -> Any:
    """What was given to `inline`, for arguments of these types, Numba's and LLVM's, as a function of this module that stays one.

    LLVM knows its arguments to be no scratch of its own: what comes in a struct in memory might be.
    """
    signature, emit = _typed(body, typing, kinds, scalar=False)
    result = context.get_value_type(signature.return_type)
    function = ir.Function(module, ir.FunctionType(result, llvm), module.get_unique_name("body"))
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(emit(context, builder, signature, function.args))
    return function


def _typed(part: Any, typing: Any, kinds: Sequence[Any], scalar: bool = True) -> tuple[Any, Any]:
    """The signature of an intrinsic or of a function of Numba's for these types, and what emits a call.

    If it is for `scalar` maths, what a user's function gives is a float: NaN where it raises.
    """
    if isinstance(part, _Intrinsic):
        found: tuple[Any, Any] = part._defn(typing, *kinds)
        return found
    inner = types.Dispatcher(part).get_call_type(typing, tuple(kinds), {})
    code = part.py_func.__code__
    if len(inner.args) != len(kinds) and not code.co_flags & inspect.CO_VARARGS:
        raise Beyond  # defaults
    result = inner.return_type
    may_raise = scalar and not target.is_ours(part.py_func) and isinstance(result, (types.Integer, types.Float, types.Boolean))

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        compiled = part.get_compile_result(inner)
        context.active_code_library.add_linking_library(compiled.library)
        declared = context.declare_function(builder.module, compiled.fndesc)
        if code.co_flags & inspect.CO_VARARGS:
            rest = context.make_tuple(builder, inner.args[-1], arguments[code.co_argcount :])
            arguments = [*arguments[: code.co_argcount], rest]
        status, found = context.call_conv.call_function(builder, declared, result, inner.args, arguments)
        if not may_raise:
            return found
        return builder.select(status.is_error, ir.DoubleType()(math.nan), context.cast(builder, found, result, FLOAT))

    return (FLOAT if may_raise else result)(*kinds), emit


class Part:
    """A function with all that it calls: LLVM for the kernel that calls it to take in."""

    def __init__(self, function: Callable[..., Any], typing: Any, kinds: Sequence[Any]) -> None:
        self.typing, self.context = typing, target.context()
        self.module = ir.Module(f"{function.__module__}.{function.__qualname__}.{next(_serial)}")
        self.module.triple, self.module.data_layout = binding.get_process_triple(), str(self.context.target_data)
        self.emitted: dict[Any, tuple[Any, Any]] = {}
        self.library = self.context.codegen().create_library(self.module.name)
        with self.context.push_code_library(self.library):  # what is called of Numba's is linked to it
            self.root, self.result = self.function(function, tuple(kinds))
        self.root.linkage = ""
        self.library.add_ir_module(self.module)
        self.library.finalize()

    @staticmethod
    def typed(function: Callable[..., Any], typing: Any, kinds: Sequence[Any]) -> tuple[Any, Any]:
        """The signature, and what emits a call."""
        try:
            ready = [Part(function, typing, kinds)]
        except Beyond:
            return _typed(by_numba(function), typing, kinds)

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            part = ready.pop() if ready else Part(function, typing, kinds)  # kept no longer than it is of use
            context.active_code_library.add_linking_library(part.library)
            root = builder.module.globals.get(part.root.name) or ir.Function(builder.module, part.root.ftype, part.root.name)
            leaves = [leaf for kind, x in zip(kinds, arguments, strict=True) for leaf in _unpacked(builder, kind, x)]
            return _packed(context, builder, signature.return_type, _results(builder, builder.call(root, leaves)))

        return ready[0].result(*kinds), emit

    def function(self, function: Any, kinds: tuple[Any, ...]) -> tuple[Any, Any]:
        """The LLVM function of a Python one for arguments of these types, and the type that it returns."""
        if (function, kinds) not in self.emitted:
            one = _Function(self, function, kinds)
            try:
                one.emit()
            except Beyond:
                del self.module.globals[one.ir.name]
                raise
            self.emitted[function, kinds] = one.ir, one.result
        return self.emitted[function, kinds]


class _Function:
    """One function: its LLVM is emitted statement after statement."""

    def __init__(self, part: Part, function: Any, kinds: tuple[Any, ...]) -> None:
        self.part, self.context, self.function = part, part.context, function
        self.node = source(function)
        name = part.module.get_unique_name(f"{part.module.name}:{function.__qualname__}")
        leaves = [self.context.get_value_type(leaf) for kind in kinds for leaf in _leaves_of(kind)]
        self.ir = ir.Function(part.module, ir.FunctionType(ir.VoidType(), leaves), name)
        self.ir.linkage = "internal"
        for attribute in ("alwaysinline", "nounwind", "noduplicate"):  # a call stands for much: LLVM would duplicate it for a test
            self.ir.attributes.add(attribute)
        self.result: Any = None
        self.kinds = kinds
        self.scope: dict[str, Value] = {}  # of names that are given one value only
        self.slots: dict[str, tuple[Any, list[Any]]] = {}  # of all others: type and memory
        stored = [n.id for n in ast.walk(self.node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        arguments = self.node.args
        names = [a.arg for a in [*arguments.args, *([arguments.vararg] if arguments.vararg else [])]]
        self.several = {name for name in stored if (stored + names).count(name) > 1}
        self.locals = {*stored, *names}

    def emit(self) -> None:
        given, arguments = iter(self.ir.args), self.node.args
        if arguments.posonlyargs or arguments.kwonlyargs or arguments.kwarg or arguments.defaults:
            raise Beyond
        entry = self.ir.append_basic_block()
        first = self.ir.append_basic_block()
        self.builder = ir.IRBuilder(first)
        values = [_rebuilt(kind, given) for kind in self.kinds]
        names = [a.arg for a in arguments.args]
        if arguments.vararg:
            names, values = [*names, arguments.vararg.arg], [*values[: len(names)], tuple(values[len(names) :])]
        if len(names) != len(values):
            raise Beyond
        for name, value in zip(names, values, strict=True):
            self.assign(name, value)
        if isinstance(self.node, ast.Lambda):
            self.give_back(self.value(self.node.body))
        else:
            self.suite(self.node.body)
        if not self.builder.block.is_terminated:
            self.give_back(Known(None))
        ir.IRBuilder(entry).branch(first)

    # Statements

    def suite(self, statements: Iterable[ast.stmt]) -> None:
        """These, until one returns. Names that are given a value here only are known here only."""
        outside = dict(self.scope)
        for statement in statements:
            if not self.builder.block.is_terminated:
                self.statement(statement)
        self.scope = outside

    def statement(self, s: ast.stmt) -> None:
        if isinstance(s, ast.Assign):
            value = self.value(s.value)
            for to in s.targets:
                self.assign_to(to, value)
        elif isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name):
            self.assign(s.target.id, self.binary(s.op, self.name(s.target.id), self.value(s.value)))
        elif isinstance(s, ast.Expr):
            if not isinstance(s.value, ast.Constant):
                self.value(s.value)
        elif isinstance(s, ast.Return):
            self.give_back(Known(None) if s.value is None else self.value(s.value))
        elif isinstance(s, ast.If):
            self.if_(s)
        elif isinstance(s, ast.For) and not s.orelse:
            self.for_(s)
        elif isinstance(s, ast.While) and not s.orelse:
            self.while_(s)
        elif not isinstance(s, ast.Pass):
            raise Beyond

    def if_(self, s: ast.If) -> None:
        test = self.value(s.test)
        if isinstance(test, Known):
            for each in s.body if test.value else s.orelse:  # not a suite of its own
                if not self.builder.block.is_terminated:
                    self.statement(each)
            return
        then, other, after = (self.builder.append_basic_block() for _ in range(3))
        goes_on = False
        self.builder.cbranch(self.truth(test), then, other)
        for block, statements in ((then, s.body), (other, s.orelse)):
            self.builder.position_at_end(block)
            self.suite(statements)
            if not self.builder.block.is_terminated:
                self.builder.branch(after)
                goes_on = True
        self.builder.position_at_end(after)
        if not goes_on:
            self.builder.unreachable()

    def for_(self, s: ast.For) -> None:
        call, builder = s.iter, self.builder
        if not isinstance(call, ast.Call):
            values = self.value(call)
            if not isinstance(values, tuple):
                raise Beyond
            for each in values:
                if not builder.block.is_terminated:
                    self.assign_to(s.target, each)
                    self.suite(s.body)
            return
        if self.value(call.func) != Known(range) or not isinstance(s.target, ast.Name):
            raise Beyond
        bounds = self.listed(call.args)
        start, stop, step = [Known(0), *bounds, Known(1)] if len(bounds) == 1 else [*bounds, Known(1)][:3]
        if not isinstance(step, Known) or type(step.value) is not int or not step.value:
            raise Beyond
        first, last = self.cast(start, INTEGER), self.cast(stop, INTEGER)
        before, header, body, after = builder.block, *(builder.append_basic_block() for _ in range(3))
        builder.branch(header)
        builder.position_at_end(header)
        i = builder.phi(ir.IntType(64))
        i.add_incoming(first, before)
        builder.cbranch(builder.icmp_signed("<" if step.value > 0 else ">", i, last), body, after)
        builder.position_at_end(body)
        outside = dict(self.scope)
        self.assign(s.target.id, Typed(INTEGER, i))
        self.suite(s.body)
        self.scope = outside
        if not builder.block.is_terminated:
            following = builder.add(i, ir.IntType(64)(step.value), flags=("nsw",))
            i.add_incoming(following, builder.block)
            blocks = step.value != 1 and not (isinstance(start, Known) and isinstance(stop, Known))
            target.hint(self.part.module, builder.branch(header), blocks)
        builder.position_at_end(after)

    def while_(self, s: ast.While) -> None:
        builder = self.builder
        header, body, after = (builder.append_basic_block() for _ in range(3))
        builder.branch(header)
        builder.position_at_end(header)
        builder.cbranch(self.truth(self.value(s.test)), body, after)
        builder.position_at_end(body)
        self.suite(s.body)
        if not builder.block.is_terminated:
            target.hint(self.part.module, builder.branch(header))
        builder.position_at_end(after)

    def give_back(self, value: Value) -> None:
        if self.result is None:
            self.result = _kind(value)
            leaves = [self.context.get_value_type(leaf) for leaf in _leaves_of(self.result)]
            whole = ir.VoidType() if not leaves else leaves[0] if len(leaves) == 1 else ir.LiteralStructType(leaves)
            self.ir.ftype = ir.FunctionType(whole, self.ir.ftype.args)
            self.ir.type = self.ir.ftype.as_pointer()
            self.ir.return_value = type(self.ir.return_value)(self.ir, whole)
        leaves = self.leaves(value, self.result)
        if not leaves:
            self.builder.ret_void()
        elif len(leaves) == 1:
            self.builder.ret(leaves[0])
        else:
            whole = ir.Constant(self.ir.ftype.return_type, ir.Undefined)
            for i, leaf in enumerate(leaves):
                whole = self.builder.insert_value(whole, leaf, i)
            self.builder.ret(whole)

    def assign_to(self, to: ast.expr, value: Value) -> None:
        if isinstance(to, ast.Name):
            self.assign(to.id, value)
        elif isinstance(to, ast.Tuple) and isinstance(value, tuple) and len(value) == len(to.elts):
            for each, x in zip(to.elts, value, strict=True):
                self.assign_to(each, x)
        else:
            raise Beyond

    def assign(self, name: str, value: Value) -> None:
        if name not in self.several:
            self.scope[name] = value
            return
        if name not in self.slots:
            kind = _kind(value)
            with self.builder.goto_entry_block():
                memory = [self.builder.alloca(self.context.get_value_type(leaf)) for leaf in _leaves_of(kind)]
            self.slots[name] = kind, memory
        kind, memory = self.slots[name]
        for leaf, place in zip(self.leaves(value, kind), memory, strict=True):
            self.builder.store(leaf, place)

    # Expressions

    def value(self, e: ast.expr) -> Value:
        if isinstance(e, ast.Constant):
            return Known(e.value)
        if isinstance(e, ast.Name):
            return self.name(e.id)
        if isinstance(e, ast.BinOp):
            return self.binary(e.op, self.value(e.left), self.value(e.right))
        if isinstance(e, ast.UnaryOp):
            return self.unary(e.op, self.value(e.operand))
        if isinstance(e, ast.BoolOp):
            return self.logic(e)
        if isinstance(e, ast.Compare) and len(e.ops) == 1:
            return self.comparison(e.ops[0], self.value(e.left), self.value(e.comparators[0]))
        if isinstance(e, ast.IfExp):
            return self.choice(self.value(e.test), lambda: self.value(e.body), lambda: self.value(e.orelse))
        if isinstance(e, ast.Call):
            return self.call(e)
        if isinstance(e, ast.Subscript):
            return self.element(self.value(e.value), e.slice)
        if isinstance(e, ast.Tuple):
            return self.listed(e.elts)
        if isinstance(e, ast.Attribute):
            module = self.value(e.value)
            if isinstance(module, Known) and isinstance(module.value, python.ModuleType):
                return _known(getattr(module.value, e.attr))
        raise Beyond

    def name(self, name: str) -> Value:
        if name in self.scope:
            return self.scope[name]
        if name in self.slots:
            kind, memory = self.slots[name]
            return _rebuilt(kind, (self.builder.load(place) for place in memory))
        if name in self.locals:
            raise Beyond
        code, function = self.function.__code__, self.function
        if name in code.co_freevars:
            return _known(function.__closure__[code.co_freevars.index(name)].cell_contents)
        scope = function.__globals__ if name in function.__globals__ else vars(builtins)
        return _known(scope[name])

    def listed(self, elements: Sequence[ast.expr]) -> tuple[Value, ...]:
        """Each of them, and each of those that are starred."""
        found: list[Value] = []
        for x in elements:
            value = self.value(x.value if isinstance(x, ast.Starred) else x)
            if isinstance(x, ast.Starred) and not isinstance(value, tuple):
                raise Beyond
            found += value if isinstance(x, ast.Starred) and isinstance(value, tuple) else [value]
        return tuple(found)

    def binary(self, op: ast.operator, x: Value, y: Value) -> Value:
        if isinstance(x, Known) and isinstance(y, Known):
            return _worked_out(OPERATORS.get(type(op)), x, y)
        if isinstance(x, tuple) or isinstance(y, tuple):
            if isinstance(x, tuple) and isinstance(y, tuple) and isinstance(op, ast.Add):
                return x + y
            raise Beyond
        kind, builder = _common(_kind(x), _kind(y)), self.builder
        if type(op) in BITS and kind in (TRUTH, INTEGER):
            return Typed(kind, getattr(builder, BITS[type(op)])(self.cast(x, kind), self.cast(y, kind)))
        if isinstance(op, ast.Div) or kind == FLOAT:
            a, b = self.cast(x, FLOAT), self.cast(y, FLOAT)
            if isinstance(op, ast.Div):
                return Typed(FLOAT, builder.fdiv(a, b))
            if type(op) in ARITHMETIC:
                return Typed(FLOAT, getattr(builder, "f" + ARITHMETIC[type(op)])(a, b))
            raise Beyond
        a = self.cast(x, INTEGER)
        if type(op) in ARITHMETIC:
            return Typed(INTEGER, getattr(builder, ARITHMETIC[type(op)])(a, self.cast(y, INTEGER)))
        power = y.value if isinstance(y, Known) else 0
        if type(power) is int and power > 0 and power & power - 1 == 0:  # rounded down, as Python does
            if isinstance(op, ast.FloorDiv):
                return Typed(INTEGER, builder.ashr(a, ir.IntType(64)(power.bit_length() - 1)))
            if isinstance(op, ast.Mod):
                return Typed(INTEGER, builder.and_(a, ir.IntType(64)(power - 1)))
        raise Beyond

    def unary(self, op: ast.unaryop, x: Value) -> Value:
        if isinstance(x, Known):
            return _worked_out(OPERATORS.get(type(op)), x)
        if isinstance(op, ast.Not):
            return Typed(TRUTH, self.builder.not_(self.truth(x)))
        kind = _kind(x)
        if isinstance(op, ast.USub) and kind in (FLOAT, INTEGER):
            return Typed(kind, (self.builder.fneg if kind == FLOAT else self.builder.neg)(self.cast(x, kind)))
        raise Beyond

    def logic(self, e: ast.BoolOp) -> Value:
        *before, last = e.values
        found: Callable[[], Value] = functools.partial(self.value, last)
        for each in reversed(before):
            found = functools.partial(self.either, isinstance(e.op, ast.And), each, found)
        return found()

    def either(self, both: bool, x: ast.expr, other: Callable[[], Value]) -> Value:
        test = self.value(x)
        if isinstance(test, Known):
            return other() if bool(test.value) == both else test
        if _kind(test) != TRUTH:
            raise Beyond
        return self.choice(test, other, lambda: Known(False)) if both else self.choice(test, lambda: Known(True), other)

    def choice(self, test: Value, one: Callable[[], Value], other: Callable[[], Value]) -> Value:
        if isinstance(test, Known):
            return one() if test.value else other()
        builder = self.builder
        blocks, after = [builder.append_basic_block() for _ in range(2)], builder.append_basic_block()
        builder.cbranch(self.truth(test), *blocks)
        values, ends = [], []
        for block, side in zip(blocks, (one, other), strict=True):
            builder.position_at_end(block)
            values.append(side())
            ends.append(builder.block)
        kind = _common(*map(_kind, values))
        leaves = []
        for value, end in zip(values, ends, strict=True):
            builder.position_at_end(end)
            leaves.append(self.leaves(value, kind))
            builder.branch(after)
        builder.position_at_end(after)
        merged = []
        for pair in zip(*leaves, strict=True):
            phi = builder.phi(pair[0].type)
            for leaf, end in zip(pair, ends, strict=True):
                phi.add_incoming(leaf, end)
            merged.append(phi)
        return _rebuilt(kind, iter(merged))

    def comparison(self, op: ast.cmpop, x: Value, y: Value) -> Value:
        if type(op) not in COMPARISONS:
            raise Beyond
        sign, python_operator = COMPARISONS[type(op)]
        if isinstance(x, Known) and isinstance(y, Known):
            return _worked_out(python_operator, x, y)
        kind = _common(_kind(x), _kind(y))
        if kind == FLOAT:
            compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        elif kind in (INTEGER, TRUTH):
            kind, compare = INTEGER, self.builder.icmp_signed
        else:
            raise Beyond
        return Typed(TRUTH, compare(sign, self.cast(x, kind), self.cast(y, kind)))

    def element(self, of: Value, place: ast.expr) -> Value:
        if isinstance(of, tuple):
            if isinstance(place, ast.Slice):
                bounds = [Known(None) if x is None else self.value(x) for x in (place.lower, place.upper, place.step)]
                if all(isinstance(x, Known) for x in bounds):
                    return of[slice(*(x.value for x in bounds if isinstance(x, Known)))]
            elif isinstance(index := self.value(place), Known) and type(index.value) is int and -len(of) <= index.value < len(of):
                return of[index.value]
        elif isinstance(of, Typed) and isinstance(of.kind, types.CPointer) and not isinstance(place, ast.Slice):
            where = self.builder.gep(of.ir, [self.cast(self.value(place), INTEGER)])
            return Typed(of.kind.dtype, self.builder.load(where))
        raise Beyond

    def call(self, e: ast.Call) -> Value:
        f = self.value(e.func)
        if not isinstance(f, Known) or e.keywords:
            raise Beyond
        given = self.listed(e.args)
        if isinstance(f.value, _Intrinsic | Dispatcher):
            return self.call_compiled(f.value, given)
        if f.value in (int, float, bool) and len(given) == 1:
            return self.converted(f.value, given[0])
        if f.value in (min, max) and len(given) == 2 and _common(*map(_kind, given)) == INTEGER:
            a, b = (self.cast(x, INTEGER) for x in given)
            return Typed(INTEGER, self.builder.select(self.builder.icmp_signed("<" if f.value is min else ">", b, a), b, a))
        raise Beyond

    def converted(self, to: Any, x: Value) -> Value:
        if isinstance(x, Known):
            return _worked_out(to, x)
        if to is bool:
            return Typed(TRUTH, self.truth(x))
        if to is int and _kind(x) in (FLOAT, types.float32):
            return Typed(INTEGER, self.builder.fptosi(self.cast(x, FLOAT), ir.IntType(64)))
        kind = INTEGER if to is int else FLOAT
        return Typed(kind, self.cast(x, kind))

    def call_compiled(self, f: Any, given: tuple[Value, ...]) -> Value:
        kinds, function = tuple(map(_kind, given)), getattr(getattr(f, "_defn", None), "part", None)
        if function is not None:
            try:
                callee, result = self.part.function(function, kinds)
            except Beyond:
                f = by_numba(function)
            else:
                leaves = [leaf for kind, x in zip(kinds, given, strict=True) for leaf in self.leaves(x, kind)]
                return _rebuilt(result, iter(_results(self.builder, self.builder.call(callee, leaves))))
        signature, emit = _typed(f, self.part.typing, kinds)
        arguments = [self.argument(x, kind) for x, kind in zip(given, signature.args, strict=True)]
        found = emit(self.context, self.builder, signature, arguments)
        return _rebuilt(signature.return_type, iter(_unpacked(self.builder, signature.return_type, found)))

    def argument(self, x: Value, kind: Any) -> Any:
        """A value as an intrinsic asks for it: any number as one of any other type, as with Numba."""
        if isinstance(x, Typed) and isinstance(x.kind, types.Number) and isinstance(kind, types.Number):
            return self.context.cast(self.builder, x.ir, x.kind, kind)
        return _packed(self.context, self.builder, kind, self.leaves(x, kind))

    def truth(self, x: Value) -> Any:
        kind = _kind(x)
        if kind == TRUTH:
            return self.cast(x, TRUTH)
        if kind == INTEGER:
            return self.builder.icmp_signed("!=", self.cast(x, INTEGER), ir.IntType(64)(0))
        if kind == FLOAT:
            return self.builder.fcmp_unordered("!=", self.cast(x, FLOAT), ir.DoubleType()(0.0))
        raise Beyond

    def leaves(self, x: Value, kind: Any) -> list[Any]:
        """The numbers and addresses of a value, as those of this type."""
        if isinstance(kind, types.BaseTuple):
            if not isinstance(x, tuple) or len(x) != len(kind.types):
                raise Beyond
            return [leaf for each, part in zip(x, kind.types, strict=True) for leaf in self.leaves(each, part)]
        return [] if kind == types.none else [self.cast(x, kind)]

    def cast(self, x: Value, kind: Any) -> Any:
        """A number or an address, as one of this type."""
        if isinstance(x, Known):
            is_integer = isinstance(x.value, int) and isinstance(kind, types.Integer) and kind.minval <= x.value <= kind.maxval
            if is_integer or isinstance(x.value, bool) and kind == TRUTH:
                return ir.Constant(self.context.get_value_type(kind), int(x.value))
            if isinstance(x.value, int | float) and isinstance(kind, types.Float):
                return ir.Constant(self.context.get_value_type(kind), float(x.value))
        elif isinstance(x, Typed):
            if x.kind == kind:
                return x.ir
            if (x.kind, kind) in WIDER:
                return self.context.cast(self.builder, x.ir, x.kind, kind)
        raise Beyond


def _known(x: Any) -> Value:
    return tuple(map(_known, x)) if type(x) is tuple else Known(x)


def _worked_out(operation: Callable[..., Any] | None, *given: Known) -> Known:
    """What an operation on known numbers gives."""
    if operation is None or not all(isinstance(x.value, int | float) for x in given):
        raise Beyond
    try:
        return Known(operation(*(x.value for x in given)))
    except ArithmeticError:
        raise Beyond from None


def _kind(x: Value) -> Any:
    """The Numba type of a value."""
    if isinstance(x, tuple):
        return types.BaseTuple.from_types(tuple(map(_kind, x)))
    if isinstance(x, Typed):
        return x.kind
    for kind, python_type in ((TRUTH, bool), (INTEGER, int), (FLOAT, float), (types.none, type(None))):
        if type(x.value) is python_type:
            return kind
    raise Beyond


def _common(x: Any, y: Any) -> Any:
    """The type of what is of one of two types."""
    if x == y:
        return x
    if isinstance(x, types.BaseTuple) and isinstance(y, types.BaseTuple) and len(x.types) == len(y.types):
        return types.BaseTuple.from_types(tuple(map(_common, x.types, y.types)))
    for one, other in ((x, y), (y, x)):
        if (one, other) in WIDER:
            return other
    raise Beyond


def _leaves_of(kind: Any) -> Iterator[Any]:
    """The types of the numbers and addresses that values of a type are made of."""
    if isinstance(kind, types.BaseTuple):
        for part in kind.types:
            yield from _leaves_of(part)
    elif kind != types.none:
        yield kind


def _rebuilt(kind: Any, leaves: Iterator[Any]) -> Value:
    """The value of this type that is made of them."""
    if isinstance(kind, types.BaseTuple):
        return tuple([_rebuilt(part, leaves) for part in kind.types])
    return Known(None) if kind == types.none else Typed(kind, next(leaves))


def _packed(context: Any, builder: Any, kind: Any, leaves: Iterable[Any]) -> Any:
    """They as Numba has a value of this type."""
    left = iter(leaves)

    def packed(kind: Any) -> Any:
        if isinstance(kind, types.BaseTuple):
            return context.make_tuple(builder, kind, [packed(part) for part in kind.types])
        return context.get_dummy_value() if kind == types.none else next(left)

    return packed(kind)


def _unpacked(builder: Any, kind: Any, x: Any) -> list[Any]:
    """The leaves of a value as Numba has it."""
    if isinstance(kind, types.BaseTuple):
        return [leaf for i, part in enumerate(kind.types) for leaf in _unpacked(builder, part, builder.extract_value(x, i))]
    return [] if kind == types.none else [x]


def _results(builder: Any, call: Any) -> list[Any]:
    """The leaves of what a function gave."""
    if isinstance(call.type, ir.LiteralStructType):
        return [builder.extract_value(call, i) for i in range(len(call.type.elements))]
    return [] if isinstance(call.type, ir.VoidType) else [call]


def source(function: Any) -> Any:
    """The syntax tree of a function or a lambda, if its source, compiled once more, is still the function's own code."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    first = code.co_firstlineno - 1
    last = max((end for _, end, _, _ in code.co_positions() if end), default=first + 1)
    kind = ast.Lambda if code.co_name == "<lambda>" else ast.FunctionDef
    for end in range(last, min(last + 4, len(lines)) + 1):  # closing brackets have no place in the code
        text = "".join(lines[first:end])
        with contextlib.suppress(SyntaxError):
            for node in ast.walk(ast.parse("if 1:\n" + text if text[:1].isspace() else text)):
                if isinstance(node, kind) and _is_of(node, code, function.__globals__):
                    return node
    raise Beyond


def _is_of(node: Any, code: python.CodeType, scope: Mapping[str, Any]) -> bool:
    """Whether the code was compiled from this."""
    if isinstance(node, ast.FunctionDef):
        node.decorator_list = []
    modules = [f"import {name}\n" for name in code.co_names if isinstance(scope.get(name), python.ModuleType)]  # they are called otherwise
    module = ast.parse(f"{''.join(modules)}def around({', '.join(code.co_freevars)}): pass")
    module.body[-1].body = [node if isinstance(node, ast.stmt) else ast.Expr(node)]  # type: ignore[attr-defined]
    compiled = compile(ast.fix_missing_locations(module), "", "exec", annotations.compiler_flag, dont_inherit=True)
    [around] = _codes_in(compiled)
    return any(all(getattr(x, part) == getattr(code, part) for part in CONTENT) for x in _codes_in(around))


def _codes_in(code: python.CodeType) -> list[python.CodeType]:
    return [x for x in code.co_consts if isinstance(x, python.CodeType)]
