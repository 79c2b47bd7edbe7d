"""Elementary functions as Numba intrinsics that LLVM's loop vectoriser widens to the full vector width.

Every function is straight-line LLVM IR: no branch, no call into libm, no fast-math flag, and fused multiply-adds only where
they are written. So the bits are the same on every CPU and at every vector width. All functions take and return float64;
a kernel widens what it loads and rounds what it stores once.

SINGLE  for data of float32 and below: relative error <= 2^-35 for any float64 argument (`pow`: 2^-30), so that a result rounded
        to float32 is within 0.501 ULP. Results below 2^-1021.5 may be flushed to zero, subnormal arguments of log, pow count as 0.
DOUBLE  for float64 data: error < 1 ULP, subnormals included. Sums that would lose the last bit are carried as an unevaluated
        pair head + tail.

Both are dicts from name to intrinsic, with the same names; use one inside jitted code through a global or closure variable:

    exp = SINGLE["exp"]
    @njit
    def kernel(x, out):
        for i in range(x.size):
            out[i] = exp(x[i])

Coefficients are minimax fits with float64 rounding; `python -m bench.accuracy --derive` fits them again. They stand lowest degree first.
"""

from __future__ import annotations

import functools
import inspect
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

_I16, _I64 = ir.IntType(16), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()


class Value:
    """An LLVM value under construction: operators emit one instruction each, so that formulas read as mathematics.

    The type is float64, or int64 for bit patterns, or i1 for the outcome of a comparison, or a vector of these. Numbers become
    constants of the other operand's type. `>>` is a logical shift. Comparisons are ordered: false if either side is NaN.
    """

    __slots__ = ("builder", "ir")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.ir = value

    def lift(self, other: Operand) -> Value:
        if isinstance(other, Value):
            return other
        vector = isinstance(self.ir.type, ir.VectorType)
        return Value(self.builder, ir.Constant(self.ir.type, [other] * self.ir.type.count if vector else other))

    def _of(self, element: Any) -> Any:
        """This value's type with other elements."""
        return ir.VectorType(element, self.ir.type.count) if isinstance(self.ir.type, ir.VectorType) else element

    def _emit(self, for_float: str, for_int: str, left: Operand, right: Operand) -> Value:
        instruction = getattr(self.builder, for_float if self.ir.type == self._of(_F64) else for_int)
        return Value(self.builder, instruction(self.lift(left).ir, self.lift(right).ir))

    def _compare(self, operator: str, other: Operand) -> Value:
        compare = self.builder.fcmp_ordered if self.ir.type == self._of(_F64) else self.builder.icmp_signed
        return Value(self.builder, compare(operator, self.ir, self.lift(other).ir))

    def __add__(self, other: Operand) -> Value:
        return self._emit("fadd", "add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self._emit("fadd", "add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self._emit("fsub", "sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self._emit("fsub", "sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self._emit("fmul", "mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self._emit("fmul", "mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self._emit("fdiv", "udiv", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self._emit("fdiv", "udiv", other, self)

    def __neg__(self) -> Value:
        return Value(self.builder, self.builder.fneg(self.ir))

    def __and__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.and_(self.ir, self.lift(other).ir))

    def __or__(self, other: Operand) -> Value:
        return Value(self.builder, self.builder.or_(self.ir, self.lift(other).ir))

    def __lshift__(self, count: int) -> Value:
        return Value(self.builder, self.builder.shl(self.ir, self.lift(count).ir))

    def __rshift__(self, count: int) -> Value:
        return Value(self.builder, self.builder.lshr(self.ir, self.lift(count).ir))

    def __lt__(self, other: Operand) -> Value:
        return self._compare("<", other)

    def __gt__(self, other: Operand) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Operand) -> Value:
        return self._compare(">=", other)

    def equals(self, other: Operand) -> Value:
        return self._compare("==", other)

    def bits(self) -> Value:
        return Value(self.builder, self.builder.bitcast(self.ir, self._of(_I64)))

    def float(self) -> Value:
        return Value(self.builder, self.builder.bitcast(self.ir, self._of(_F64)))

    def chosen(self, eight: Sequence[int], features: str) -> Value:
        """Of a vector of integers: for each the number that its last three bits choose.

        AVX-512 has an instruction for this, AVX2 one for numbers of 32 bits, so that halves are chosen.
        """
        b, parts, half = self.builder, [], ir.IntType(32)

        def vector(numbers: Any, bits: int = 32) -> Any:
            return ir.Constant(ir.VectorType(ir.IntType(bits), len(numbers)), list(numbers))

        def by_element(table: Any, places: Any) -> Any:
            found = ir.Constant(table.type, ir.Undefined)
            for k in range(8):
                found = b.insert_element(found, b.extract_element(table, b.extract_element(places, half(k))), half(k))
            return found

        def by_halves(places: Any) -> Any:
            type_ = ir.VectorType(half, 8)
            choose = cgutils.get_or_insert_function(b.module, ir.FunctionType(type_, [type_, type_]), "llvm.x86.avx2.permd")
            places = b.trunc(places, type_)
            low, high = (b.call(choose, [vector([x >> shift & 0xFFFFFFFF for x in eight]), places]) for shift in (0, 32))
            pairs = b.shuffle_vector(low, high, vector([k // 2 + 8 * (k % 2) for k in range(16)]))
            return b.bitcast(pairs, ir.VectorType(_I64, 8))

        def at_once(places: Any) -> Any:
            type_ = ir.VectorType(_I64, 8)
            choose = cgutils.get_or_insert_function(b.module, ir.FunctionType(type_, [type_, type_]), "llvm.x86.avx512.permvar.di.512")
            return b.call(choose, [vector(eight, 64), places])  # which looks at no other bits

        wide, halves = "+avx512f" in features, "+avx2" in features
        last = self.ir if wide else (self & 7).ir
        for i in range(0, last.type.count, 8):
            places = b.shuffle_vector(last, last, vector(range(i, i + 8)))
            parts.append(at_once(places) if wide else by_halves(places) if halves else by_element(vector(eight, 64), places))
        while len(parts) > 1:
            both = vector(range(2 * parts[0].type.count))
            parts = [b.shuffle_vector(x, y, both) for x, y in zip(parts[::2], parts[1::2], strict=True)]
        return Value(b, parts[0])

    def call(self, name: str, *others: Operand) -> Value:
        """The LLVM intrinsic `llvm.<name>` of this value and the others."""
        type_ = self.ir.type
        kind = f"v{type_.count}f64" if isinstance(type_, ir.VectorType) else "f64"
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(type_, [type_] * (1 + len(others))), f"llvm.{name}.{kind}"
        )
        return Value(self.builder, self.builder.call(function, [self.ir, *(self.lift(other).ir for other in others)]))


Operand = Value | int | float


def fma(a: Value, b: Operand, c: Operand) -> Value:
    """a b + c, rounded once."""
    return a.call("fma", b, c)


def where(condition: Value, a: Operand, b: Operand) -> Value:
    like = a if isinstance(a, Value) else b
    assert isinstance(like, Value), "where() needs one operand that is not a constant"
    return Value(like.builder, like.builder.select(condition.ir, like.lift(a).ir, like.lift(b).ir))


def at_most(x: Value, limit: float) -> Value:
    """min(x, limit) that keeps a NaN of x: one vminpd, whose second operand wins when they are unordered."""
    return where(x.lift(limit) < x, limit, x)


def at_least(x: Value, limit: float) -> Value:
    return where(x.lift(limit) > x, limit, x)


def horner(x: Value, coefficients: Sequence[Operand]) -> Value:
    """Sum of coefficients[k] x^k, the least operations: where little else waits for it, or much can be done beside it."""
    *rest, last = coefficients
    y = x.lift(last)
    for term in reversed(rest):
        y = fma(y, x, term)
    return y


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Sum of coefficients[k] x^k: quadruples by Estrin's scheme, then Horner's rule in x^4.

    Two multiplications more than Horner alone, but a third of its latency, which a vectorised loop cannot hide entirely.
    """
    terms: list[Operand] = list(coefficients)
    for _ in range(2):
        terms = [fma(x, *reversed(terms[i : i + 2])) if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
        x = x * x
    return horner(x, terms)


def fast_two_sum(a: Operand, b: Value) -> tuple[Value, Value]:
    """(s, e) with s + e = a + b exactly, for |a| >= |b| or a = 0."""
    s = a + b
    return s, (a - s) + b


def two_sum(a: Operand, b: Value) -> tuple[Value, Value]:
    """(s, e) with s + e = a + b exactly, whichever is larger."""
    s = a + b
    b_in_s = s - a
    return s, (a - (s - b_in_s)) + (b - b_in_s)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """(p, e) with p + e = a b exactly."""
    p = a * b
    return p, fma(a, b, -p)


LN2 = 0.6931471805599453
# 42 bits of ln 2, so that its product with an exponent (11 bits) is exact, and the rest.
LN2_HIGH, LN2_LOW = 0.6931471805598903, 5.497923018708371e-14
LOG2_E = 1.4426950408889634
# Adding ROUND rounds a number below 2^51 to an integer, and leaves this integer in the low bits of the sum. With the exponent's
# bias added as well, those bits shifted to the exponent field are the power of two itself.
ROUND = 1.5 * 2.0**52
BIAS = 1023
MANTISSA = (1 << 52) - 1
# Mantissas are taken from [sqrt(1/2), sqrt(2)): the bits of sqrt(1/2).
SQRT_HALF = 0x3FE6A09E667F3BCD
SMALLEST_NORMAL = 2.0**-1022
BOUND = 600.0  # exponentials up to its own, 2^865.6, can be added up, 2^150 of them

# expm1(r)/r for |r| <= ln2/2, relative error 2^-37.7
EXPM1 = (
    0.999999999995573, 0.5000000000120517, 0.16666666785352516, 0.04166666595145855, 0.008333283750929295, 0.0013888978329369755,
    0.0001990745152799042, 2.4801570316407515e-05,
)  # fmt: skip
# exp(r), relative error 2^-38.9, and exp(0) = 1 to the last bit
EXP = (1.0, *EXPM1)
# expm1(r)/r for |r| <= ln2/16, error times r 2^-40.6, and with it exp(r)
EXPM1_EIGHTH = (1.000000000000082, 0.49999999847115656, 0.16666666609889227, 0.041669925072110134, 0.008333984987450431)
EXP_EIGHTH = (1.0, *EXPM1_EIGHTH)
# The bits of 2^(j/8) less those of 1 and less j 2^49: what (n << 49) of n = 8 k + j lacks to be those of 2^(n/8 - 1023).
EIGHTHS = tuple(struct.unpack("=q", struct.pack("=d", 2.0 ** (j / 8)))[0] - (BIAS << 52) - (j << 49) for j in range(8))
# 2 atanh(t/2)/t in t^2 <= ((2 sqrt(2) - 2)/(sqrt(2) + 1))^2, relative error 2^-37.7
ATANH = (1.000000000004212, 0.08333333155057236, 0.012500120583854815, 0.0022292957780251136, 0.00046127862179298345)
# the same in t^2 <= (2/3)^2, relative error 2^-38.5
ATANH_WIDE = (
    1.0000000000025142, 0.08333333278415356, 0.012500019543715912, 0.002231883018354529, 0.00043566168221292954,
    8.357673926282041e-05, 2.670735563634663e-05,
)  # fmt: skip
# the same in t^2 <= 0.4^2, relative error 2^-35.5
ATANH_RATIO = (1.0000000000200207, 0.08333332710449101, 0.01250030955545905, 0.0022267778702438432, 0.0004716287253345746)
# log(cosh(x))/x^2 in x^2 <= 0.6^2, relative error 2^-36.4
LOG_COSH = (
    0.49999999999452677, -0.0833333318281957, 0.022222154433580145, -0.006744880916372481, 0.0021775593299268735, -0.000698542474118897,
    0.0001678764812214077,
)  # fmt: skip
# sqrt(2) sinh(x/2)/x in x^2 <= 100: of its square times x^2, which is cosh(x) - 1, the log1p has a relative error of 2^-34.9
SINH_HALF = (
    0.7071067811969096, 0.029462782512184316, 0.00036828479924154613, 2.1921686174314645e-06, 7.611897540917407e-09,
    1.729220681351801e-11, 2.787105085121114e-14, 3.129615068230758e-17, 4.04545233596084e-20,
)  # fmt: skip
# 2 atanh(t/2)/(t ln2) in t^2 <= ((2 sqrt(2) - 2)/(sqrt(2) + 1))^2, relative error 2^-45.0
LOG2 = (
    1.442695040888925, 0.12022458676416321, 0.0180336856992797, 0.003220384773783828, 0.0006248159283381343,
    0.0001381344142660064,
)  # fmt: skip
# (exp(r) - 1 - r)/r^2 for |r| <= ln2/2, error times r 2^-59.9
EXP_TAIL = (
    0.5, 0.1666666666666667, 0.041666666666666685, 0.008333333333326141, 0.0013888888888874396, 0.00019841269874801805,
    2.480158734734432e-05, 2.7557255424045377e-06, 2.7557252909773547e-07, 2.5105207074481283e-08, 2.0921589745372003e-09,
)  # fmt: skip
# (log(cosh(x)) - x^2/2)/x^4 in x^2 <= 0.6^2, error times 2 x^2 2^-57.3
LOG_COSH_TAIL = (
    -0.08333333333333325, 0.022222222222208966, -0.006746031745281112, 0.002186948832391896, -0.0007386026114220544,
    0.00025657694488231996, -9.096482323226753e-05, 3.2665367132191286e-05, -1.1606374705842431e-05, 3.702401536406767e-06,
    -7.631808248179799e-07,
)  # fmt: skip
# (2 atanh(t/2)/t - 1 - t^2/12)/t^4 in t^2 <= ((2 sqrt(2) - 2)/(sqrt(2) + 1))^2, error times t^4 2^-65.8
ATANH_TAIL = (
    0.012500000000000705, 0.0022321428570390668, 0.0004340277835903518, 8.87782440257215e-05, 1.8782662189343517e-05,
    4.045663245285208e-06, 1.0067913188545818e-06,
)  # fmt: skip
# the same in t^2 <= (2/3)^2, error times t^4 2^-58.9
ATANH_WIDE_TAIL = (
    0.01250000000001669, 0.002232142856159904, 0.000434027800297907, 8.877813767032478e-05, 1.8781981640560303e-05,
    4.060461233258178e-06, 9.211897543009926e-07, 1.6155618059408192e-07, 8.006971439265406e-08,
)  # fmt: skip
TWELFTH_HIGH, TWELFTH_LOW = 1 / 12, 4.625929269271485e-18


# SINGLE: a polynomial carries the whole of the function, and one double the whole of each term.


def _exp_reduced(x: Value, doubled: bool, sum_up: Callable[..., Value] = polynomial) -> Value:
    """exp(x) for clamped x: x = n ln2 + r, exp(x) = exp(r) 2^n; `doubled` takes 2 exp(r) and 2^(n-1), so that n may be 1024.

    One ln2 is enough: its rounding error times |n| <= 1024 is 2^-45. The power becomes 0 for n just below the normal range.
    """
    shift = ROUND + BIAS - doubled
    t = fma(x, LOG2_E, shift)
    r = fma(t - shift, -LN2, x)
    return sum_up(r, [c * (1 + doubled) for c in EXP]) * (t.bits() << 52).float()


def _exp_single(x: Value) -> Value:
    return _exp_reduced(at_most(at_least(x, -708.5), 709.9), doubled=True)


def _exp_single_nonpositive(x: Value) -> Value:
    return _exp_reduced(at_least(x, -709.0), doubled=False)


def _exp_single_many(x: Value, features: str) -> Value:
    """exp(x) for x <= 709, many at a time: x = n ln2/8 + r, exp(x) = exp(r) 2^(n/8). The eight powers of two stand in one register.

    n is a multiple of 8 at the smallest x, where the power is 0.
    """
    shift = ROUND + 8 * BIAS
    x = at_least(x, -BIAS * LN2)
    t = fma(x, 8.0 * LOG2_E, shift)
    r = fma(t - shift, -LN2 / 8, x)
    n = t.bits()
    return horner(r, EXP_EIGHTH) * ((n << 49) + n.chosen(EIGHTHS, features)).float()


def _exp_single_bounded(x: Value, features: str) -> Value:
    """exp(min(x, BOUND)), many at a time."""
    return _exp_single_many(at_most(x, BOUND), features)


def _expm1_single(x: Value) -> Value:
    """2^n (expm1(r) + 1) - 1, halved until the end so that n may be 1024. It is -1 to the last bit below -40."""
    shift = ROUND + BIAS - 1
    clamped = at_most(at_least(x, -40.0), 709.9)
    t = fma(clamped, LOG2_E, shift)
    r = fma(t - shift, -LN2, clamped)
    power = (t.bits() << 52).float()
    # -(1/2 - power) rather than power - 1/2: for n = 0 it is -0, which keeps the sign of x = -0
    return 2.0 * fma(power, r * polynomial(r, EXPM1), -(0.5 - power))


def _tanh_single(x: Value) -> Value:
    """With E = expm1(-2|x|) in (-1, 0]: tanh |x| = -E/(2 + E). It is 1 to the last bit from 20 on.

    The reduction is done on |x| = r - n ln2/2, n <= 0, and the polynomial takes the factor -2: expm1(-2r) = -2r EXPM1(-2r).
    """
    a = at_most(x.call("fabs"), 20.0)
    t = fma(a, -2.0 * LOG2_E, ROUND + BIAS)
    r = fma(t - (ROUND + BIAS), LN2 / 2, a)
    power = (t.bits() << 52).float()
    minus_expm1 = r * polynomial(r, [-c * (-2.0) ** (k + 1) for k, c in enumerate(EXPM1)])
    minus_e = fma(power, minus_expm1, 1.0 - power)
    return (minus_e / (2.0 - minus_e)).call("copysign", x)


def _sigmoid_single(x: Value) -> Value:
    """1/(1 + e) or e/(1 + e) with e = exp(-|x|) <= 1: right in both tails, and no overflow."""
    e = _exp_single_nonpositive(-x.call("fabs"))
    return where(x < 0.0, e, 1.0) / (1.0 + e)


def _log1p_reduced(f: Value, coefficients: Sequence[float]) -> Value:
    """log(1 + f) = 2 atanh(t/2), t = f/(1 + f/2). The division is as fast as the eight more terms of a polynomial in f."""
    t = f / fma(f, 0.5, 1.0)
    return t * horner(t * t, coefficients)


def _softplus_single(x: Value) -> Value:
    """max(x, 0) + log1p(exp(-|x|))."""
    return at_least(x, 0.0) + _log1p_reduced(_exp_single_nonpositive(-x.call("fabs")), ATANH_WIDE)


def _log_cosh_single(x: Value) -> Value:
    """|x| - ln2 + log1p(exp(-2|x|)), which cancels for small x: there x^2 times a polynomial in x^2."""
    a = x.call("fabs")
    square = a * a
    large = a + (_log1p_reduced(_exp_single_nonpositive(-2.0 * a), ATANH) - LN2)
    return where(a < 0.6, square * polynomial(square, LOG_COSH), large)


def _coshm1_single(x: Value) -> Value:
    root = x * horner(x * x, SINH_HALF)
    return root * root


def _exponent_field(x: Value) -> Value:
    """Bits whose exponent field is k + BIAS where x = m 2^k, m in [sqrt(1/2), sqrt(2)), and whose low bits are m's from there on."""
    return x.bits() + ((BIAS << 52) - SQRT_HALF)


def _mantissa(field: Value) -> Value:
    return ((field & MANTISSA) + SQRT_HALF).float()


def _minus_exponent(field: Value) -> Value:
    """-k as a float, from the bits of 2^52 + k + BIAS: AVX2 cannot convert int64. It is +0 for k = 0."""
    two_52 = 2.0**52
    return (two_52 + BIAS) - ((field >> 52) | ((BIAS + 52) << 52)).float()


def _log_specials(x: Value, y: Value, smallest: float) -> Value:
    """y = log(x), made inf at inf, -inf at zero (|x| < smallest), NaN below and at NaN."""
    y = where(x < math.inf, y, x)
    return where(x >= smallest, y, where(x > -smallest, x.lift(-math.inf), math.nan))


def _log_single(x: Value) -> Value:
    """k ln2 + log(m)."""
    field = _exponent_field(x)
    f = _mantissa(field) - 1.0
    y = fma(_minus_exponent(field), -LN2, _log1p_reduced(f, ATANH))
    return _log_specials(x, y, SMALLEST_NORMAL)


def _log1p_single(x: Value) -> Value:
    """k ln2 + log1p(f) where 1 + x = (1 + f) 2^k: f = x 2^-k - (1 - 2^-k) is rounded once, and is x itself for k = 0.

    2^(2-k) and x/4 stand for 2^-k and x, because 2^-k is subnormal for k = 1023. Written with -(1 - 2^-k) and with -k so that the
    zeros that are added at k = 0 are -0: log1p(-0) = -0.
    """
    u = 1.0 + x
    field = _exponent_field(u)
    power = ((1 << 63) - (field & ~MANTISSA)).float()
    f = fma(0.25 * x, power, -fma(power, -0.25, 1.0))
    y = fma(_minus_exponent(field), -LN2, _log1p_reduced(f, ATANH))
    return _log_specials(u, y, SMALLEST_NORMAL)


def _rel_entr_single(a: Value, b: Value) -> Value:
    """a (k ln2 + 2 atanh(q)), q = (c - b)/(c + b), c = a 2^-k: one division, and for nearly equal a and b, where k is 0, the
    difference is exact. k is the difference of the bits, rounded to whole exponents, which leaves c/b between 2/3 and 3/2.
    """
    field = a.bits() - b.bits() + ((BIAS << 52) + (1 << 51))
    c = (a.bits() - (field & ~MANTISSA) + (BIAS << 52)).float()
    q = (c - b) / (c + b)
    return a * fma(_minus_exponent(field), -LN2, q * horner(q * q, [2.0 * x * 4.0**k for k, x in enumerate(ATANH_RATIO)]))


def _pow_specials(x: Value, y: Value, power: Value) -> Value:
    """C's pow, from power = |x|^y: 1 where y = 0 or x = 1, whatever the other is; where x < 0, NaN unless y is whole, and signed if odd."""
    half = 0.5 * y
    whole, even = y.call("floor").equals(y), half.call("floor").equals(half)
    power = where(x.call("fabs").equals(1.0), 1.0, power)
    power = where(whole, where(even, power, power.call("copysign", x)), where((x < 0.0) & (x > -math.inf), math.nan, power))
    return where(y.equals(0.0), 1.0, power)


def _pow_single(x: Value, y: Value) -> Value:
    """2^(y log2 |x|), and its sign."""
    size = x.call("fabs")
    field = _exponent_field(size)
    f = _mantissa(field) - 1.0
    log2 = _log_specials(size, _log1p_reduced(f, LOG2) - _minus_exponent(field), SMALLEST_NORMAL)
    z = at_most(at_least(y * log2, -1022.0), 1024.5)
    shift = ROUND + BIAS - 1
    t = z + shift
    exp2 = polynomial(z - (t - shift), [2.0 * c * LN2**k for k, c in enumerate(EXP)])
    return _pow_specials(x, y, exp2 * (t.bits() << 52).float())


# DOUBLE: the leading terms are carried as head + tail, a polynomial is only the small rest.


def _exp_parts(x: Value) -> tuple[Value, Value, Value]:
    """(head, tail, t) with exp(x) = (head + tail) 2^n, n in the low bits of t; x = n ln2 + r, head + ... = 1 + r + r^2 EXP_TAIL(r)."""
    shift = ROUND + 2 * BIAS
    t = fma(x, LOG2_E, shift)
    n = t - shift
    r_high = fma(n, -LN2_HIGH, x)  # exact
    r = fma(n, -LN2_LOW, r_high)
    head, rest = fast_two_sum(1.0, r_high)
    return head, fma(r * r, polynomial(r, EXP_TAIL), fma(n, -LN2_LOW, rest)), t


def _powers(t: Value) -> tuple[Value, Value]:
    """Two powers of two whose product is 2^n: neither overflows where the result does not, nor is either subnormal."""
    half = (t.bits() & 4095) >> 1
    return (half << 52).float(), ((t.bits() - half) << 52).float()


def _exp_double(x: Value) -> Value:
    head, tail, t = _exp_parts(at_most(at_least(x, -746.0), 710.0))
    a, b = _powers(t)
    return (head + tail) * a * b


def _expm1_parts(x: Value, bias: int) -> tuple[Value, Value]:
    """(head, tail) of expm1(x) 2^(bias - BIAS) for |x| <= 710: 2^n - 1 + 2^n r + 2^n r^2/2 + 2^n (the rest of EXP_TAIL).

    The first terms never cancel by more than two bits, and each sum of them is zero or larger than the next term.
    """
    shift = ROUND + bias
    t = fma(x, LOG2_E, shift)
    n = t - shift
    r_high = fma(n, -LN2_HIGH, x)  # exact
    r = fma(n, -LN2_LOW, r_high)
    r_tail = fma(n, -LN2_LOW, r_high - r)
    half_square, half_square_tail = two_product(0.5 * r, r)
    cubic = fma(r * half_square, polynomial(r, [2.0 * c for c in EXP_TAIL[1:]]), half_square_tail + fma(r, r_tail, r_tail))
    power = (t.bits() << 52).float()
    head, tail = two_sum(-(2.0 ** (bias - BIAS)), power)
    head, r_rounding = fast_two_sum(head, power * r)
    head, square_rounding = fast_two_sum(head, power * half_square)
    return head, fma(power, cubic, tail + (r_rounding + square_rounding))


def _expm1_double(x: Value) -> Value:
    head, tail = _expm1_parts(at_most(at_least(x, -40.0), 710.0), BIAS - 1)
    return where(x.call("fabs") < 2.0**-54, x, 2.0 * (head + tail))


def _quotient(a: Value, a_tail: Operand, d: Value, d_tail: Value) -> tuple[Value, Value]:
    """(q, q_tail) with q + q_tail = (a + a_tail)/(d + d_tail): a first quotient and what its remainder adds to it."""
    r = 1.0 / d
    q = a * r
    return q, fma(-q, d_tail, fma(-q, d, a) + a_tail) * r


def _tanh_double(x: Value) -> Value:
    """-E/(2 + E) with E = expm1(-2|x|), numerator and denominator in pairs."""
    e, e_tail = fast_two_sum(*_expm1_parts(-2.0 * at_most(x.call("fabs"), 20.0), BIAS))
    d, d_tail = fast_two_sum(2.0, e)
    q, q_tail = _quotient(-e, -e_tail, d, d_tail + e_tail)
    return (q + q_tail).call("copysign", x)


def _exp_pair(x: Value) -> tuple[Value, Value]:
    """(e, e_tail) with e + e_tail = exp(x) for x <= 0."""
    head, tail, t = _exp_parts(at_least(x, -746.0))
    e, e_tail = fast_two_sum(head, tail)
    a, b = _powers(t)
    return e * a * b, e_tail * a * b


def _sigmoid_double(x: Value) -> Value:
    e, e_tail = _exp_pair(-x.call("fabs"))
    d, d_tail = fast_two_sum(1.0, e)
    negative = x < 0.0
    q, q_tail = _quotient(where(negative, e, 1.0), where(negative, e_tail, 0.0), d, d_tail + e_tail)
    return q + q_tail


def _atanh_argument(f: Value, f_tail: Value | None = None) -> tuple[Value, Value]:
    """(t, t_tail) of t = f/(1 + f/2), where log(1 + f) = 2 atanh(t/2)."""
    d, d_tail = fast_two_sum(1.0, 0.5 * f)
    if f_tail is None:
        return _quotient(f, -0.0, d, d_tail)  # adding -0 is no operation, adding +0 would be one
    return _quotient(f, f_tail, d, fma(f_tail, 0.5, d_tail))


def _log1p_parts(t: Value, t_tail: Value, coefficients: Sequence[float]) -> tuple[Value, Value]:
    """(head, tail) of 2 atanh(t/2) = t + t (t^2/12 + ...)."""
    z = t * t
    return t, fma(t, z * polynomial(z, (TWELFTH_HIGH, *coefficients)), t_tail)


def _log_double(x: Value) -> Value:
    """k ln2 + log(m); k ln2 is zero or the larger."""
    subnormal = x < SMALLEST_NORMAL
    field = _exponent_field(where(subnormal, x * 2.0**54, x))
    k = -(_minus_exponent(field) + where(subnormal, x.lift(54.0), 0.0))
    log_m, tail = _log1p_parts(*_atanh_argument(_mantissa(field) - 1.0), ATANH_TAIL)
    head, rest = fast_two_sum(k * LN2_HIGH, log_m)
    y = head + (rest + fma(k, LN2_LOW, tail))
    return _log_specials(x, y, 5e-324)


def _log1p_double(x: Value) -> Value:
    """As in SINGLE, with the rounding error of f kept. Below 2^-54 it is x, with its sign and its subnormal bits."""
    u = 1.0 + x
    field = _exponent_field(u)
    power = ((1 << 63) - (field & ~MANTISSA)).float()
    k = -_minus_exponent(field)
    f, f_tail = two_sum(fma(power, 0.25, -1.0), 0.25 * x * power)
    log_m, tail = _log1p_parts(*_atanh_argument(f, f_tail), ATANH_TAIL)
    head, rest = fast_two_sum(k * LN2_HIGH, log_m)
    y = head + (rest + fma(k, LN2_LOW, tail))
    return where(x.call("fabs") < 2.0**-54, x, _log_specials(u, y, SMALLEST_NORMAL))


def _rel_entr_double(a: Value, b: Value) -> Value:
    difference = a - b
    return a * _log1p_double(difference.call("fabs") / a.call("minimum", b)).call("copysign", difference)


def _softplus_double(x: Value) -> Value:
    """max(x, 0) + log1p(exp(-|x|)). It is x to the last bit above 40."""
    log, tail = _log1p_parts(*_atanh_argument(*_exp_pair(-x.call("fabs"))), ATANH_WIDE_TAIL)
    y, y_tail = two_sum(at_least(x, 0.0), log)
    return where(x > 40.0, x, y + (y_tail + tail))


def _log_cosh_double(x: Value) -> Value:
    """|x| - ln2 + log1p(exp(-2|x|)), or x^2/2 + x^4 LOG_COSH_TAIL(x^2) below 0.6, or |x| - ln2 above 40."""
    a = x.call("fabs")
    half_square, rounding = two_product(0.5 * a, a)
    square = a * a
    small = half_square + fma(square * square, polynomial(square, LOG_COSH_TAIL), rounding)

    log, tail = _log1p_parts(*_atanh_argument(*_exp_pair(-2.0 * a)), ATANH_TAIL)
    linear, linear_tail = fast_two_sum(a, a.lift(-LN2_HIGH))  # exact below 2 ln2, a the larger above
    y, y_tail = two_sum(linear, log)
    middle = y + (y_tail + (linear_tail + (tail - LN2_LOW)))
    return where(a < 0.6, small, where(a > 40.0, a - LN2, middle))


def _coshm1_double(x: Value) -> Value:
    """expm1(x)^2/(2 exp(x)), which is within 4 ULP."""
    e = _expm1_double(x)
    return e * e / (2.0 * (1.0 + e))


def _pow_double(x: Value, y: Value) -> Value:
    """exp(y log |x|) and its sign, log |x| to 2^-66 as a pair, since y log |x| up to 2^9.5 is an error of the result.

    log m = 2 atanh(t/2) = t (1 + t^2/12 + t^4 ATANH_TAIL(t^2)), every term but the last as a pair.
    """
    size = x.call("fabs")
    subnormal = size < SMALLEST_NORMAL
    field = _exponent_field(where(subnormal, size * 2.0**54, size))
    k = -(_minus_exponent(field) + where(subnormal, x.lift(54.0), 0.0))
    t, t_tail = fast_two_sum(*_atanh_argument(_mantissa(field) - 1.0))
    z, z_tail = two_product(t, t)
    z_tail = fma(2.0 * t, t_tail, z_tail)
    c, c_tail = fast_two_sum(TWELFTH_HIGH, z * polynomial(z, ATANH_TAIL))
    c_tail = c_tail + TWELFTH_LOW
    v, v_tail = two_product(z, c)
    w, w_tail = fast_two_sum(1.0, v)
    w_tail = w_tail + fma(z, c_tail, fma(z_tail, c, v_tail))
    log_m, log_m_tail = two_product(t, w)
    log_m_tail = fma(t, w_tail, fma(t_tail, w, log_m_tail))
    head, rest = fast_two_sum(k * LN2_HIGH, log_m)
    log, log_tail = fast_two_sum(head, rest + fma(k, LN2_LOW, log_m_tail))
    log = _log_specials(size, log, 5e-324)

    product, product_tail = two_product(y, log)
    product_tail = fma(y, log_tail, product_tail)
    ordinary = product.call("fabs") < 746.0  # else 0, inf or NaN, and the tail means nothing
    head, tail, t = _exp_parts(at_most(at_least(product, -746.0), 710.0))
    tail = fma(head + tail, where(ordinary, product_tail, 0.0), tail)
    a, b = _powers(t)
    return _pow_specials(x, y, (head + tail) * a * b)


# Half precision, carried as uint16.


def _load_half(bits: Value) -> Value:
    """float16 -> float64: move the exponent's bias; inf and NaN have all exponent bits set.

    A subnormal m 2^-24 is (1 + m 2^-10) 2^-14 - 2^-14, which no CPU slows down or flushes.
    """
    magnitude = (bits & 0x7FFF) << 42
    exponent = where(bits.lift(0x7BFF) < (bits & 0x7FFF), bits.lift((2047 - 31) << 52), (BIAS - 15) << 52)
    normal = magnitude + exponent
    subnormal = (normal + (1 << 52)).float() - 2.0**-14
    value = where((bits & 0x7C00).equals(0), subnormal.bits(), normal)
    return (value | ((bits & 0x8000) << 48)).float()


def _load_bfloat16(bits: Value) -> Value:
    b = bits.builder
    single = b.bitcast(b.trunc((bits << 16).ir, ir.IntType(32)), _F32)
    return Value(b, b.fpext(single, _F64))


def _store(x: Value, digits: int, smallest: int, infinity: float) -> Value:
    """The 16 bits of x rounded to nearest even: `digits` of significand, smallest normal 2^smallest, first power that overflows.

    Adding 2^(53 - digits) times x's power of two (or the smallest normal one) rounds x in hardware, and leaves it as a count of its
    last place in the low bits: this plus the exponent is the result, for a carry into the exponent and for subnormals too.
    """
    a = at_most(x.call("fabs"), infinity)
    exponent = at_least(a, 2.0**smallest).bits() & ~MANTISSA
    big = exponent + ((53 - digits) << 52)
    count = (a + big.float()).bits() - big
    steps = (exponent - ((BIAS + smallest) << 52)) >> (53 - digits)
    nan = ((1 << (16 - digits)) - 1) << (digits - 1) | 1 << (digits - 2)
    unordered = Value(x.builder, x.builder.fcmp_unordered("uno", x.ir, x.ir))
    return where(unordered, x.bits().lift(nan), count + steps) | ((x.bits() >> 48) & 0x8000)


def _store_half(x: Value) -> Value:
    return _store(x, 11, -14, 2.0**16)


def _store_bfloat16(x: Value) -> Value:
    return _store(x, 8, -126, 2.0**128)


def _intrinsic(name: str, formula: Callable[..., Value], arguments: Sequence[Any] | None = None, result: Any = types.float64,
               more: bool = False) -> Any:  # fmt: skip
    """The Numba intrinsic of a formula over Values; its arguments are float64 unless given, and numbers are cast to them.

    If `more`, it takes two or more: formula(formula(a, b), c), and so on.
    """
    names = tuple(inspect.signature(formula).parameters)
    fixed = tuple(arguments or [types.float64] * len(names))

    def typing(context: Any, *given: Any) -> Any:
        parameters, expected = names, fixed
        if more and len(given) > 2:
            parameters, expected = tuple(f"x{i}" for i in range(len(given))), (types.float64,) * len(given)
        if len(given) != len(expected):
            raise TypingError(f"{name} takes {len(expected)} arguments ({', '.join(parameters)}), got {len(given)}")
        typing.__signature__ = signature(parameters)  # type: ignore[attr-defined]  # Numba looks at it when this has returned
        for parameter, want, got in zip(parameters, expected, given, strict=True):
            allowed = types.Boolean if want == types.boolean else (types.Integer, types.Float, types.Boolean)
            if want == types.uint16 and got != want or not isinstance(got, allowed):
                raise TypingError(f"{name}: argument {parameter} must be a {want}, got {got}")

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            widen = [builder.zext(value, _I64) if value.type == _I16 else value for value in values]
            known = [Value(builder, value) for value in widen]
            value = (functools.reduce(formula, known) if more else formula(*known)).ir
            return builder.trunc(value, _I16) if result == types.uint16 else value

        return result(*expected), generate

    def signature(parameters: tuple[str, ...]) -> inspect.Signature:
        return inspect.Signature([inspect.Parameter(p, inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in ("context", *parameters)])

    # What Numba and a code cache see of it: the formula's own parameters, and a name that no other intrinsic has.
    typing.__name__ = typing.__qualname__ = name
    typing.__signature__ = signature(names)  # type: ignore[attr-defined]
    return intrinsic(typing)


def _over(name: str, formula: Callable[[Value, str], Value]) -> Any:
    """The intrinsic (p, into): into[i] = formula(p[i], the CPU's features) for 64 float64, both aligned to 64 bytes.

    A loop over lanes becomes one vector's whole chain of operations after the other's, more than a CPU looks ahead. Here every operation
    is done on several vectors before the next is: on as many as AVX-512 has registers for, or on four AVX ones. The bits are the same.
    """

    def typing(typing: Any, p: Any, into: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            features = context.codegen().magic_tuple()[2]
            vector = ir.VectorType(_F64, 64 if "+avx512f" in features else 16)
            for i in range(0, 64, vector.count):
                source, target = (builder.bitcast(builder.gep(x, [_I64(i)]), vector.as_pointer()) for x in args)
                builder.store(formula(Value(builder, builder.load(source, align=64)), features).ir, target, align=64)
            return context.get_dummy_value()

        return types.void(p, into), emit

    typing.__name__ = typing.__qualname__ = name  # no other intrinsic has it
    return intrinsic(typing)


def _product(x: Value, y: Value) -> Value:
    """x y, in one instruction with its addition to what has the same flag, on CPUs that have such."""
    return Value(x.builder, x.builder.fmul(x.ir, y.ir, flags=("contract",)))


_EXACT: dict[str, Any] = {
    "sqrt": _intrinsic("sqrt", lambda x: x.call("sqrt")),
    "fabs": _intrinsic("fabs", lambda x: x.call("fabs")),
    "copysign": _intrinsic("copysign", lambda x, sign: x.call("copysign", sign)),
    # IEEE 754-2019 maximum and minimum: NaN from either side, -0 < +0
    "maximum": _intrinsic("maximum", lambda a, b: a.call("maximum", b), more=True),
    "minimum": _intrinsic("minimum", lambda a, b: a.call("minimum", b), more=True),
    # floats, where Numba's are int64, which ends at 2^63
    "floor": _intrinsic("floor", lambda x: x.call("floor")),
    "ceil": _intrinsic("ceil", lambda x: x.call("ceil")),
    "trunc": _intrinsic("trunc", lambda x: x.call("trunc")),
    "float": _intrinsic("float", lambda x: x),
    "product": _intrinsic("product", _product),
    "where": _intrinsic("where", where, (types.boolean, types.float64, types.float64)),
}

SINGLE: dict[str, Any] = _EXACT | {
    "exp": _intrinsic("SINGLE.exp", _exp_single),
    "exp_nonpositive": _intrinsic("SINGLE.exp_nonpositive", _exp_single_nonpositive),
    "log": _intrinsic("SINGLE.log", _log_single),
    "log1p": _intrinsic("SINGLE.log1p", _log1p_single),
    "expm1": _intrinsic("SINGLE.expm1", _expm1_single),
    "tanh": _intrinsic("SINGLE.tanh", _tanh_single),
    "pow": _intrinsic("SINGLE.pow", _pow_single),
    "sigmoid": _intrinsic("SINGLE.sigmoid", _sigmoid_single),
    "softplus": _intrinsic("SINGLE.softplus", _softplus_single),
    "log_cosh": _intrinsic("SINGLE.log_cosh", _log_cosh_single),
    "coshm1": _intrinsic("SINGLE.coshm1", _coshm1_single),
    "log_of_sum": _intrinsic("SINGLE.log_of_sum", lambda x, lost: _log_single(x)),
    "rel_entr": _intrinsic("SINGLE.rel_entr", _rel_entr_single),
}

DOUBLE: dict[str, Any] = _EXACT | {
    "exp": _intrinsic("DOUBLE.exp", _exp_double),
    "exp_nonpositive": _intrinsic("DOUBLE.exp_nonpositive", _exp_double),
    "log": _intrinsic("DOUBLE.log", _log_double),
    "log1p": _intrinsic("DOUBLE.log1p", _log1p_double),
    "expm1": _intrinsic("DOUBLE.expm1", _expm1_double),
    "tanh": _intrinsic("DOUBLE.tanh", _tanh_double),
    "pow": _intrinsic("DOUBLE.pow", _pow_double),
    "sigmoid": _intrinsic("DOUBLE.sigmoid", _sigmoid_double),
    "softplus": _intrinsic("DOUBLE.softplus", _softplus_double),
    "log_cosh": _intrinsic("DOUBLE.log_cosh", _log_cosh_double),
    "coshm1": _intrinsic("DOUBLE.coshm1", _coshm1_double),
    "log_of_sum": _intrinsic("DOUBLE.log_of_sum", lambda x, lost: _log_double(x) + lost / x),
    "rel_entr": _intrinsic("DOUBLE.rel_entr", _rel_entr_double),
}

exps_single, exps_double = _over("exps_single", _exp_single_many), _over("exps_double", lambda x, features: _exp_double(x))
exps_single_bounded = _over("exps_single_bounded", _exp_single_bounded)

load_half = _intrinsic("load_half", _load_half, [types.uint16])
load_bfloat16 = _intrinsic("load_bfloat16", _load_bfloat16, [types.uint16])
store_half = _intrinsic("store_half", _store_half, result=types.uint16)
store_bfloat16 = _intrinsic("store_bfloat16", _store_bfloat16, result=types.uint16)
