"""Scalar Python, as the row contract has it, to CUDA C++.

What a user's `lossfuncs.pointwise` loss says in Python is said again as functions of a struct over the computing type T, for NVRTC:
arithmetic, comparisons (chained ones too), `and`, `or`, `not`, conditional expressions, `if` statements, assignments, `return`, the
functions of `math`, `abs`, `min`, `max`, `pow`, `float`, `bool`, `where`, and calls of other such functions. Python's meaning is kept
where C++ differs: `/` never divides integers, `//` and `%` round down, min and max keep NaN, every number is a T. Anything else is refused
with its place. Conditionals stay conditionals: the contract asks for no branches in the built-in maths only.

The text comes from the source, which must still be that of the function; where there is none, as in a function made by `exec`, that is
the error.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import inspect
import linecache
import math
import numbers
import operator
import types
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .rows import Rows, Scalar, exp_nonpositive, log_cosh, sigmoid, softplus, where

# The type of an expression: a number, a truth value, or a tuple of so many numbers.
Kind = str | int
NUMBER, BOOL = "T", "bool"
FUTURE = functools.reduce(operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names))
INDENT = "        "
TOTALS = -1  # a tuple that came as an argument: of any length


class Untranslatable(ValueError):
    """A function has no CUDA form; the message names the construct and its line."""


class Value(NamedTuple):
    """An expression in C++."""

    text: str
    kind: Kind


class Function(NamedTuple):
    """A translated function: what to call, and what it returns."""

    name: str
    kind: Kind


SAME_NAME = {1: ("exp", "log", "log1p", "expm1", "exp2", "log2", "log10", "sqrt", "cbrt", "sin", "cos", "tan", "asin", "acos", "atan",
                 "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "lgamma", "floor", "ceil", "trunc"),
             2: ("pow", "atan2", "hypot", "fmod", "copysign", "remainder"), 3: ("fma",)}  # fmt: skip
# What a function is in C++, and how many arguments it takes there; max and min of more are nested.
KNOWN: dict[Any, tuple[str, int]] = {
    **{getattr(math, name): (name, count) for count, names in SAME_NAME.items() for name in names if hasattr(math, name)},
    **{f: (f.__name__, 1) for f in (exp_nonpositive, sigmoid, softplus, log_cosh)},
    math.gamma: ("tgamma", 1), math.fabs: ("magnitude", 1), abs: ("magnitude", 1), pow: ("pow", 2),
    max: ("maximum", 2), min: ("minimum", 2),
}  # fmt: skip
TESTS = {math.isnan: "isnan", math.isinf: "isinf", math.isfinite: "isfinite"}
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
CALLED = {ast.FloorDiv: "floor_divide", ast.Mod: "floor_modulo"}
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
CONSTRUCTS = {
    ast.For: "a for loop", ast.While: "a while loop", ast.ListComp: "a list comprehension", ast.GeneratorExp: "a generator",
    ast.FunctionDef: "a function inside the function", ast.Lambda: "a lambda inside the function", ast.Try: "try", ast.With: "with",
    ast.Raise: "raise", ast.Assert: "assert", ast.Import: "import", ast.ImportFrom: "import", ast.Dict: "a dictionary", ast.List: "a list",
    ast.Set: "a set", ast.JoinedStr: "a string", ast.Attribute: "an attribute", ast.NamedExpr: "an assignment inside an expression",
    ast.Match: "match", ast.Call: "a call", ast.Delete: "del", ast.Starred: "an unpacked argument", ast.Subscript: "a subscript",
    ast.Global: "global", ast.Nonlocal: "nonlocal",
}  # fmt: skip


class Translator:
    """Gathers the C++ text of functions and of all that they call."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._done: dict[tuple[int, tuple[Kind, ...]], Function | None] = {}
        self._kept: list[Any] = []  # what the ids above are of

    @property
    def text(self) -> str:
        """The definitions so far, each after those that it calls."""
        return "\n".join(self._texts)

    def function(self, f: Scalar, kinds: Sequence[Kind]) -> Function:
        """The translation of f for arguments of these kinds, NUMBER or TOTALS: a static function of a struct template over T.

        Untranslatable, a ValueError, for what has no CUDA form.
        """
        key = id(f), tuple(kinds)
        if key not in self._done:
            self._kept.append(f)
            self._done[key] = None
            try:
                self._done[key] = self._translate(f, kinds)
            finally:
                if self._done[key] is None:
                    del self._done[key]
        found = self._done[key]
        if found is None:
            raise Untranslatable(f"{_where(f)} calls itself, which a function for the GPU must not")
        return found

    def _translate(self, f: Any, kinds: Sequence[Kind]) -> Function:
        node = source_node(f)
        known: dict[str, Kind] = {}
        while True:
            body = _Body(self, f, node, kinds, known)
            lines = body.lines()
            if body.known == known:
                break
            known = body.known  # some variable holds numbers and truth values: a number then
        result = known["return"]
        name = f"{_ascii(f.__code__.co_name) if f.__code__.co_name != '<lambda>' else 'lambda'}_{len(self._texts)}"
        types_ = [f"class S{i}" for i, kind in enumerate(kinds) if kind not in (NUMBER, BOOL)]
        template = [f"    template <{', '.join(types_)}>"] if types_ else []
        arguments = [f"T {text}" if kind in (NUMBER, BOOL) else f"const S{i}& {text}"
                     for i, (text, kind) in enumerate(zip(body.arguments, kinds, strict=True))]  # fmt: skip
        head = f"    static DEVICE {_cpp(result)} {name}({', '.join(arguments)}) {{"
        variables = [f"        {_cpp(kind)} {_variable(v)}{{}};" for v, kind in known.items() if v != "return" and v not in body.parameters]
        self._texts.append("\n".join([*template, head, *variables, *lines, "    }\n"]))
        return Function(name, result)


class _Body:
    """One function, for arguments of given kinds."""

    def __init__(self, translator: Translator, f: Any, node: ast.FunctionDef | ast.Lambda, kinds: Sequence[Kind],
                 known: Mapping[str, Kind]) -> None:  # fmt: skip
        self.translator, self.f, self.node = translator, f, node
        self.known = dict(known)  # kinds of variables, and of what is returned
        self.rest_name, self.rest = "", list[str]()  # of *args: the name, and what they are
        named = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        if node.args.kwarg is not None or (node.args.vararg is not None and node.args.kwonlyargs):
            raise Untranslatable(f"{_where(f)} takes arguments as no function for the GPU can: give its CUDA text, or compute on the CPU")
        self.parameters = {a.arg: kind for a, kind in zip(named, kinds, strict=False)}
        self.arguments = [_variable(a) for a in self.parameters]
        if node.args.vararg is not None:
            self.rest_name = node.args.vararg.arg
            self.rest = [f"{_variable(self.rest_name)}{i}" for i in range(len(kinds) - len(named))]
            self.arguments += self.rest
        if len(self.arguments) != len(kinds) or len(self.parameters) != len(named):
            raise Untranslatable(f"{_where(f)} takes other than the {len(kinds)} arguments that it is called with")
        self.known.update(self.parameters)
        self.assigned = set(self.parameters)

    def refused(self, node: ast.AST, construct: str = "") -> Untranslatable:
        construct = construct or CONSTRUCTS.get(type(node), "")
        first = ast.unparse(node).splitlines()[0]
        named = f"{construct}, {first!r}," if construct else f"{first!r}"
        at = f"{self.f.__code__.co_filename}, line {getattr(node, 'lineno', self.f.__code__.co_firstlineno)}"
        return Untranslatable(f"{named} in {self.f.__name__} ({at}) has no CUDA form: give the function's CUDA text, or compute on the CPU")

    def lines(self) -> list[str]:
        if isinstance(self.node, ast.Lambda):
            return [self._return(self.node.body, INDENT)]
        lines, assigned = self._block(self.node.body, set(self.parameters), INDENT)
        if assigned is not None:
            raise Untranslatable(f"{_where(self.f)} can end without return")
        return lines

    # Statements. `assigned` are the variables that hold something for sure; None after a return.

    def _block(self, statements: list[ast.stmt], assigned: set[str] | None, indent: str) -> tuple[list[str], set[str] | None]:
        lines: list[str] = []
        for statement in statements:
            if assigned is None:
                break  # never reached
            self.assigned = assigned
            if isinstance(statement, ast.Return) and statement.value is not None:
                lines.append(self._return(statement.value, indent))
                assigned = None
            elif isinstance(statement, ast.If):
                test = self._truth(statement.test, self._value(statement.test))
                before, after = (self._block(part, set(assigned), indent + "    ") for part in (statement.body, statement.orelse))
                lines += [f"{indent}if ({test}) {{", *before[0]]
                lines += [f"{indent}}} else {{", *after[0], f"{indent}}}"] if after[0] else [f"{indent}}}"]
                both = [x for x in (before[1], after[1]) if x is not None]
                assigned = set.intersection(*both) if both else None
            elif isinstance(statement, ast.Assign):
                value = self._value(statement.value)
                for target in statement.targets:
                    lines += self._assign(target, value, indent)
                    value = self._value(ast.copy_location(ast.Name(target.id), target)) if isinstance(target, ast.Name) else value
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                lines += self._assign(statement.target, self._value(statement.value), indent)
            elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
                before_ = ast.copy_location(ast.Name(statement.target.id, ast.Load()), statement)
                value = self._value(ast.copy_location(ast.BinOp(before_, statement.op, statement.value), statement))
                lines += self._assign(statement.target, value, indent)
            elif not isinstance(statement, ast.Pass) and not _is_text(statement):
                raise self.refused(statement)
        return lines, assigned

    def _return(self, node: ast.expr, indent: str) -> str:
        value = self._value(node)
        kind = self._settle(node, "return", value.kind)
        return f"{indent}return {self._as(value, kind)};"

    def _assign(self, target: ast.expr, value: Value, indent: str) -> list[str]:
        if isinstance(target, ast.Name):
            kind = self._settle(target, target.id, value.kind)
            self.assigned.add(target.id)
            return [f"{indent}{_variable(target.id)} = {self._as(value, kind)};"]
        if not isinstance(target, ast.Tuple) or not all(isinstance(part, ast.Name) for part in target.elts):
            raise self.refused(target)
        if value.kind not in (len(target.elts), TOTALS):
            raise self.refused(target, "an assignment of another number of values")
        each = [line for i, part in enumerate(target.elts) for line in self._assign(part, Value(f"T(r[{i}])", NUMBER), indent + "    ")]
        return [f"{indent}{{", f"{indent}    const auto& r = {value.text};", *each, f"{indent}}}"]

    def _settle(self, node: ast.AST, name: str, kind: Kind) -> Kind:
        """The kind of a variable that is now given a value of this kind."""
        known = self.known.setdefault(name, kind)
        if known != kind:
            if {known, kind} != {NUMBER, BOOL}:
                raise self.refused(node, f"{'what is returned' if name == 'return' else name}, once a number and once a tuple")
            self.known[name] = NUMBER
        return self.known[name]

    # Expressions

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return self._constant(node, node.value)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.BoolOp):
            return self._logic(node)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.IfExp):
            return self._choice(node, self._value(node.test), self._value(node.body), self._value(node.orelse))
        if isinstance(node, ast.Tuple):
            parts = [self._number(part) for part in node.elts]
            return Value(f"Numbers<T, {len(parts)}>{{{{{', '.join(parts)}}}}}", len(parts))
        if isinstance(node, ast.Subscript):
            return self._element(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Attribute):
            return self._constant(node, self._object(node))
        raise self.refused(node)

    def _number(self, node: ast.expr) -> str:
        value = self._value(node)
        if value.kind not in (NUMBER, BOOL):
            raise self.refused(node, "a tuple where a number is wanted")
        return self._as(value, NUMBER)

    def _as(self, value: Value, kind: Kind) -> str:
        return f"T({value.text})" if (value.kind, kind) == (BOOL, NUMBER) else value.text

    def _truth(self, node: ast.AST, value: Value) -> str:
        if value.kind not in (NUMBER, BOOL):
            raise self.refused(node, "a tuple where a condition is wanted")
        return value.text if value.kind == BOOL else f"({value.text} != T(0))"

    def _constant(self, node: ast.AST, value: Any) -> Value:
        if isinstance(value, (bool, numbers.Real)):
            if value is True or value is False:
                return Value(str(value).lower(), BOOL)
            try:
                x = float(value)
            except OverflowError:
                raise self.refused(node, "a number beyond float64") from None
            if math.isinf(x):
                return Value(f"T(bits_to_float({'0x7f800000u' if x > 0 else '0xff800000u'}))", NUMBER)
            return Value("T(bits_to_float(0x7fc00000u))" if math.isnan(x) else f"T({x!r})", NUMBER)
        raise self.refused(node)

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self.known:
            if name not in self.assigned:
                raise self.refused(node, "a variable that may hold nothing")
            kind = self.known[name]
            return Value(_variable(name), kind)
        if name == self.rest_name:
            return Value(f"Numbers<T, {len(self.rest)}>{{{{{', '.join(self.rest)}}}}}", len(self.rest))
        if name in self.f.__code__.co_varnames:
            raise self.refused(node, "a variable that may hold nothing")
        return self._constant(node, self._object(node))

    def _object(self, node: ast.expr) -> Any:
        """The Python object that a name, or a module's attribute, means."""
        if isinstance(node, ast.Attribute):
            of = self._object(node.value) if isinstance(node.value, ast.Name) else None
            if isinstance(of, types.ModuleType) and hasattr(of, node.attr):
                return getattr(of, node.attr)
            raise self.refused(node)
        if not isinstance(node, ast.Name) or node.id in self.known:
            raise self.refused(node)
        cells = dict(zip(self.f.__code__.co_freevars, self.f.__closure__ or (), strict=True))
        try:
            if node.id in cells:
                return cells[node.id].cell_contents
            return self.f.__globals__[node.id] if node.id in self.f.__globals__ else getattr(builtins, node.id)
        except (AttributeError, ValueError):
            raise self.refused(node, "a name without a value") from None

    def _operation(self, node: ast.BinOp) -> Value:
        if isinstance(node.op, ast.Pow):
            x, y = self._number(node.left), self._number(node.right)
            return Value(f"square({x})" if y == "T(2.0)" else f"pow({x}, {y})", NUMBER)
        if type(node.op) in OPERATORS:
            return Value(f"({self._number(node.left)} {OPERATORS[type(node.op)]} {self._number(node.right)})", NUMBER)
        if type(node.op) in CALLED:
            return Value(f"{CALLED[type(node.op)]}({self._number(node.left)}, {self._number(node.right)})", NUMBER)
        raise self.refused(node, "an operation on bits or matrices")

    def _unary(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return Value(f"!{self._truth(node, self._value(node.operand))}", BOOL)
        if isinstance(node.op, ast.Invert):
            raise self.refused(node, "an operation on bits or matrices")
        return Value(f"({'-' if isinstance(node.op, ast.USub) else '+'}{self._number(node.operand)})", NUMBER)

    def _logic(self, node: ast.BoolOp) -> Value:
        *before, last = (self._value(part) for part in node.values)
        for value in reversed(before):
            if value.kind == last.kind == BOOL:
                last = Value(f"({value.text} {'&&' if isinstance(node.op, ast.And) else '||'} {last.text})", BOOL)
            else:
                one, other = (last, value) if isinstance(node.op, ast.And) else (value, last)
                last = self._choice(node, value, one, other)
        return last

    def _comparison(self, node: ast.Compare) -> Value:
        if not all(type(op) in COMPARISONS for op in node.ops):
            raise self.refused(node)
        operands = [self._number(x) for x in (node.left, *node.comparators)]
        pairs = zip(operands, node.ops, operands[1:], strict=False)
        return Value(f"({' && '.join(f'{x} {COMPARISONS[type(op)]} {y}' for x, op, y in pairs)})", BOOL)

    def _choice(self, node: ast.AST, test: Value, one: Value, other: Value) -> Value:
        kind = one.kind
        if kind != other.kind:
            if {kind, other.kind} != {NUMBER, BOOL}:
                raise self.refused(node, "a choice of a number or a tuple")
            kind = NUMBER
        return Value(f"({self._truth(node, test)} ? {self._as(one, kind)} : {self._as(other, kind)})", kind)

    def _element(self, node: ast.Subscript) -> Value:
        of, index = self._value(node.value), node.slice
        if isinstance(of.kind, str) or not isinstance(index, ast.Constant) or type(index.value) is not int:
            raise self.refused(node)
        if index.value < 0 or (of.kind != TOTALS and index.value >= of.kind):
            raise self.refused(node, "a place that the tuple does not have")
        if isinstance(node.value, ast.Name) and node.value.id == self.rest_name:
            return Value(self.rest[index.value], NUMBER)
        return Value(f"T({of.text}[{index.value}])", NUMBER)

    def _call(self, node: ast.Call) -> Value:
        f = self._object(node.func)
        if not callable(f) or not isinstance(f, Hashable):
            raise self.refused(node)
        if isinstance(f, types.FunctionType) and f is not where and f not in KNOWN:
            return self._own(node, f)
        if node.keywords:
            raise self.refused(node)
        if f is where and len(node.args) == 3:
            return self._choice(node, *(self._value(x) for x in node.args))
        given = [self._number(x) for x in self._arguments(node)]
        name, count = KNOWN.get(f, ("", -1))
        if f in (max, min) and len(given) > 1:
            return Value(functools.reduce(lambda x, y: f"{name}({x}, {y})", given), NUMBER)
        if len(given) == count:
            return Value(f"{name}({', '.join(given)})", NUMBER)
        if f in TESTS and len(given) == 1:
            return Value(f"{TESTS[f]}({given[0]})", BOOL)
        if f is math.log and len(given) == 2:
            return Value(f"(log({given[0]}) / log({given[1]}))", NUMBER)
        if f in (math.degrees, math.radians) and len(given) == 1:
            return Value(f"({given[0]} * T({f(1.0)!r}))", NUMBER)
        if f is float and len(given) == 1:
            return Value(given[0], NUMBER)
        if f is bool and len(given) == 1:
            return Value(self._truth(node, self._value(node.args[0])), BOOL)
        raise self.refused(node)

    def _arguments(self, node: ast.Call) -> Iterator[ast.expr]:
        for x in node.args:
            if not isinstance(x, ast.Starred):
                yield x
            elif isinstance(x.value, ast.Name) and x.value.id == self.rest_name:
                for i in range(len(self.rest)):
                    yield ast.copy_location(ast.Subscript(x.value, ast.Constant(i), ast.Load()), x)
            else:
                raise self.refused(x)

    def _own(self, node: ast.Call, f: Any) -> Value:
        """A call of another plain function, with Python's rules for arguments by name and defaults."""
        by_name = {x.arg: x.value for x in node.keywords if x.arg is not None}
        try:
            bound = inspect.signature(f, follow_wrapped=False).bind(*self._arguments(node), **by_name)
        except TypeError as error:
            raise self.refused(node, f"a call with arguments that do not fit ({error})") from None
        if len(by_name) < len(node.keywords):
            raise self.refused(node)
        bound.apply_defaults()
        given = (*bound.args, *bound.kwargs.values())
        values = [self._value(x) if isinstance(x, ast.expr) else self._constant(node, x) for x in given]
        kinds = [NUMBER if value.kind in (NUMBER, BOOL) else TOTALS for value in values]
        found = self.translator.function(f, kinds)
        return Value(f"{found.name}({', '.join(self._as(value, NUMBER) for value in values)})", found.kind)


def functor(rows: Rows, parameters: int, name: str) -> str:
    """The row contract of `kernels/rows.cuh` for these rows: a struct template over T of that name, with so many parameters as fields.

    Its helpers are static functions of it, so that several such structs stand beside each other. For the namespace `lossfuncs`.

    Untranslatable, a ValueError, where one of its functions has no CUDA form.
    """
    translator = Translator()
    fields = [f"a{i}" for i in range(parameters)]
    numbers = [NUMBER] * parameters

    def call(f: Scalar, arguments: dict[str, Kind]) -> tuple[Kind, str]:
        found = translator.function(f, [*arguments.values(), *numbers])
        return found.kind, f"{found.name}({', '.join([*arguments, *fields])})"

    def member(kind: Kind, head: str, expression: str) -> str:
        return f"    DEVICE {_cpp(kind)} {head} const {{ return {expression}; }}"

    kinds = {"sum": "Sum<{0}>", "max": "Max<{0}>", "top": "Top<{0}>", "dot": "Dot<{0}>", "lse": "LogSumExp", "label": "Label",
             "pick": "Pick<{1}>", "larger": "Sum<1>", "rank": "Rank<{1}, {2}>", "earlier": "Pick<{1}>"}  # fmt: skip
    ranks = {k: k + 1 for k, one in enumerate(rows.passes[:-1]) if one.op == "larger" and rows.passes[k + 1].op == "earlier"}
    said = [rows.passes[k + 1]._replace(op="rank") if k in ranks else one for k, one in enumerate(rows.passes)]
    passes = ", ".join(kinds[one.op].format(one.size, one.label, one.own) for one in said)
    lines = [f"    typedef Passes<{passes}> passes;"]
    if fields:
        lines.insert(0, f"    T {', '.join(fields)};")
    lines.append(f"    static constexpr int leading = {len(rows.passes) if rows.leading is None else rows.leading};")
    lines.append(f"    static constexpr bool pointwise = {str(rows.pointwise).lower()};")
    for k, one in enumerate(rows.passes):
        if one.op == "label" or k in ranks:  # Rank counts the larger and the earlier at once
            continue
        if one.op == "earlier":
            lines.append(member(NUMBER, f"terms(At<{k}>, const double* s, T p)", "T(0)"))
            continue
        if one.op == "larger":
            lines.append(member(NUMBER, f"terms(At<{k}>, const double* s, T t, T p)", f"where(p <= T(s[{one.own}]), T(0), T(1))"))
            continue
        arguments: dict[str, Kind] = {"s": TOTALS, "t": NUMBER, "p": NUMBER}
        if one.op in ("dot", "pick"):
            del arguments["t"]
        kind, expression = call(one.terms, arguments)
        head = f"terms(At<{k}>, const double* s, {', '.join(f'T {x}' for x in arguments if x != 's')})"
        lines.append(member(kind, head, f"{expression}[0]" if kind == 1 else expression).replace("Numbers<T, 1>", "T"))
    totals: dict[str, Kind] = {"s": TOTALS, "n": NUMBER}
    kind, expression = call(rows.value, totals)
    lines.append(member("double", "value(const double* s, double n)", f"{expression}[0]" if kind == 1 else expression))
    if rows.around is not None:
        kind, expression = call(rows.around, totals)
        lines.append(member(kind, "around(const double* s, double n)", expression))
    for which, f in (("slope", rows.slope), ("curve", rows.curve)):
        if f is not None:
            kind, expression = call(f, {"c": TOTALS, "t": NUMBER, "p": NUMBER})
            lines.append(member(NUMBER, f"{which}(const double* c, T t, T p)", f"{expression}[0]" if kind == 1 else expression))
    return "\n".join([f"template <class T> struct {name} {{", *lines, "", translator.text + "};\n"])


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def _cpp(kind: Kind) -> str:
    return kind if isinstance(kind, str) else f"Numbers<T, {kind}>"


def _ascii(name: str) -> str:
    return "".join(c if c.isascii() else f"u{ord(c):x}" for c in name)


def _variable(name: str) -> str:
    """A name that is no keyword, macro or function of C++."""
    return f"{_ascii(name)}_"


def _where(f: Any) -> str:
    return f"{f.__name__} ({f.__code__.co_filename}, line {f.__code__.co_firstlineno})"


def source_node(f: Any) -> ast.FunctionDef | ast.Lambda:
    """The syntax tree of a plain function's source. Untranslatable where there is none, or one that is no longer that of the function."""
    if not inspect.isfunction(f):
        raise Untranslatable(f"expected a plain Python function, got {type(f).__name__}")
    file = f.__code__.co_filename
    linecache.checkcache(file)
    lines = linecache.getlines(file, f.__globals__)
    if not lines:
        raise Untranslatable(f"the source of {_where(f)} is not to be had: put it into a file, or give the function's CUDA text")
    tree, codes = _parsed("".join(lines), file, f.__code__.co_flags & FUTURE)
    found = list(_nodes_of(f, tree)) if f.__code__ in codes else []
    if not found:
        raise Untranslatable(f"the source of {_where(f)} has changed since it was read: start anew")
    return min(found, key=_extent)  # of lambdas in each other, the innermost


@functools.lru_cache(maxsize=64)
def _parsed(text: str, file: str, flags: int) -> tuple[ast.Module, frozenset[types.CodeType]]:
    try:
        tree = ast.parse(text, file)
        return tree, frozenset(_codes(compile(text, file, "exec", flags, dont_inherit=True)))
    except SyntaxError:  # of a half-edited file
        return ast.Module([], []), frozenset()


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)


def _nodes_of(f: Any, tree: ast.Module) -> Iterator[ast.FunctionDef | ast.Lambda]:
    code = f.__code__
    places = [place for place in code.co_positions() if None not in place and place[3]]  # what begins a function has no place of its own
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(x.lineno for x in node.decorator_list)])
            if node.name == code.co_name and first == code.co_firstlineno:
                yield node
        elif isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and node.lineno == code.co_firstlineno:
            body = node.body
            begin, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
            if all(begin <= (line, column) and (end_line, end_column) <= end for line, end_line, column, end_column in places):
                yield node


def _extent(node: ast.FunctionDef | ast.Lambda) -> tuple[int, int]:
    return ((node.end_lineno or 0) - node.lineno, (node.end_col_offset or 0) - node.col_offset)
