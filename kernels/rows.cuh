// The contract of lossfuncs/rows.py in C++: a loss is a few totals over its row, then a formula.
//
// A pointwise loss is a struct template over the type T that it computes in, double, float or fast_float (fast.cuh), with
//     T value(T t, T p), T slope(T t, T p), T curve(T t, T p)      (value may be a double, where terms of both signs cancel, or a Logs<T>)
// made to rows by Mean<...> or Total<...>. Any other is a struct template with
//     passes                                     Passes<Sum<2>, LogSumExp, ...>: what is gathered over the row, in order
//     terms(At<k>, s, t, p)                      what one element brings to pass k: a T, or Numbers<T, size>. Dot and Pick: terms(At<k>, s, p)
//     value(s, n)                                the row's value from its totals s, a T or a double
//     Numbers<double, size> around(s, n)         what the derivative needs of the row
//     T slope(c, t, p), T curve(c, t, p)         derivatives of the row's value by one p
//     leading                                    how many of the passes the value needs, if not all
// s and c are `const double*` and n is a double: totals are gathered in double whatever T is; t and p are T. around is called on the struct
// with T = double, value also where rows are long. The fields are the loss's parameters, in the order of the Python tuple, and nothing else.
// No constructor: it is an aggregate.
//
// Names are those of the Python rows; the meaning of each pass is told there.
#pragma once
#include "portable.cuh"

namespace lossfuncs {

template <class T, int K> struct Numbers {
    T x[K];
    DEVICE T operator[](int i) const { return x[i]; }
};

// Which pass a `terms` belongs to.
template <int K> struct At {};

enum Operation { SUM, MAX, TOP, LSE, DOT, LABEL, PICK, RANK };

template <int K = 1> struct Sum { static constexpr Operation op = SUM; static constexpr int size = K, label = 0, own = 0; };
template <int K = 1> struct Max { static constexpr Operation op = MAX; static constexpr int size = K, label = 0, own = 0; };
template <int K = 1> struct Top { static constexpr Operation op = TOP; static constexpr int size = K, label = 0, own = 0; };
template <int K = 1> struct Dot { static constexpr Operation op = DOT; static constexpr int size = K, label = 0, own = 0; };
struct LogSumExp { static constexpr Operation op = LSE; static constexpr int size = 2, label = 0, own = 0; };
struct Label { static constexpr Operation op = LABEL; static constexpr int size = 1, label = 0, own = 0; };
template <int L> struct Pick { static constexpr Operation op = PICK; static constexpr int size = 1, label = L, own = 0; };
template <int L, int O> struct Rank { static constexpr Operation op = RANK; static constexpr int size = 1, label = L, own = O; };

template <class... P> struct Passes { static constexpr int count = sizeof...(P), size = (0 + ... + P::size); };

template <int I, class P> struct PassAt;
template <class P, class... Rest> struct PassAt<0, Passes<P, Rest...>> { typedef P type; };
template <int I, class P, class... Rest> struct PassAt<I, Passes<P, Rest...>> : PassAt<I - 1, Passes<Rest...>> {};

template <class...> struct Always { typedef void type; };
// How many of the passes the value needs: all, unless the struct says `leading`.
template <class L, class = void> struct Leading { static constexpr int value = L::passes::count; };
template <class L> struct Leading<L, typename Always<decltype(L::leading)>::type> { static constexpr int value = L::leading; };
// Whether slope and curve need nothing of the other elements, and rows may be cut anywhere: Mean and Total say `pointwise`.
template <class L, class = void> struct Pointwise { static constexpr bool value = false; };
template <class L> struct Pointwise<L, typename Always<decltype(L::pointwise)>::type> { static constexpr bool value = L::pointwise; };

constexpr double EPS = 1e-7;

template <class T> DEVICE T where(bool condition, T x, T y) { return condition ? x : y; }
template <class T> DEVICE T magnitude(T x) { return x < T(0) ? -x : x + T(0); }
DEVICE float magnitude(float x) { return fabsf(x); }
DEVICE double magnitude(double x) { return fabs(x); }

// x / y for a divisor between 2^-126 and 2^126; x y + z. In fast_float they are faster so.
template <class T> DEVICE T quotient(T x, T y) { return x / y; }
template <class T> DEVICE T fused(T x, T y, T z) { return x * y + z; }

// They keep NaN.
template <class T> DEVICE T maximum(T x, T y) { return x > y || x != x ? x : y; }
template <class T> DEVICE T minimum(T x, T y) { return x < y || x != x ? x : y; }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
DEVICE float maximum(float x, float y) { float z; asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y)); return z; }
DEVICE float minimum(float x, float y) { float z; asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y)); return z; }
#endif

template <class T> DEVICE T exp_nonpositive(T x) { return exp(x); }
template <class T> DEVICE T sigmoid(T x) {
    T e = exp(-magnitude(x));
    return quotient(where(x >= T(0), T(1), e), T(1) + e);
}
template <class T> DEVICE T softplus(T x) { return maximum(x, T(0)) + log1p(exp(-magnitude(x))); }
// x + log1p(y), y >= 0: of the sum of several, one logarithm is taken. y grows to 2^n where n of them are added whose own is at most 1.
template <class T> struct Logs {
    T x, y;
    DEVICE operator T() const { return x + log1p(y); }
    DEVICE Logs& operator+=(const Logs& other) {
        x += other.x;
        y = fused(y, other.y, y + other.y);
        return *this;
    }
};

template <class T> DEVICE Logs<T> logs_of_cosh(T x) {
    T y = magnitude(x), e = exp(-y), m = expm1(-y);
    if (y < T(1)) return {T(0), m * m / (T(2) * e)};
    return {y - T(0.69314718055994530942), e * e};
}
template <class T> DEVICE T log_cosh(T x) { return logs_of_cosh(x); }

// The mean over the row of F::value; its derivatives.
template <class F> struct Mean {
    F f;
    typedef Passes<Sum<1>> passes;
    static constexpr bool pointwise = true;
    template <class T> DEVICE auto terms(At<0>, const double*, T t, T p) const { return f.value(t, p); }
    DEVICE double value(const double* s, double n) const { return s[0] / n; }
    DEVICE Numbers<double, 1> around(const double*, double n) const { return {1.0 / n}; }
    template <class T> DEVICE T slope(const double* c, T t, T p) const { return T(c[0]) * f.slope(t, p); }
    template <class T> DEVICE T curve(const double* c, T t, T p) const { return T(c[0]) * f.curve(t, p); }
};

// The sum over the row.
template <class F> struct Total {
    F f;
    typedef Passes<Sum<1>> passes;
    static constexpr bool pointwise = true;
    template <class T> DEVICE auto terms(At<0>, const double*, T t, T p) const { return f.value(t, p); }
    DEVICE double value(const double* s, double) const { return s[0]; }
    DEVICE Numbers<double, 1> around(const double*, double) const { return {1.0}; }
    template <class T> DEVICE T slope(const double*, T t, T p) const { return f.slope(t, p); }
    template <class T> DEVICE T curve(const double*, T t, T p) const { return f.curve(t, p); }
};

// A functor L with its N parameters.
template <class L, int N, class T> DEVICE L with_parameters(const T* a) {
    static_assert(N <= 8, "more parameters than any loss has");
    if constexpr (N == 0) return L{};
    else if constexpr (N == 1) return L{a[0]};
    else if constexpr (N == 2) return L{a[0], a[1]};
    else if constexpr (N == 3) return L{a[0], a[1], a[2]};
    else if constexpr (N == 4) return L{a[0], a[1], a[2], a[3]};
    else if constexpr (N == 5) return L{a[0], a[1], a[2], a[3], a[4]};
    else if constexpr (N == 6) return L{a[0], a[1], a[2], a[3], a[4], a[5]};
    else if constexpr (N == 7) return L{a[0], a[1], a[2], a[3], a[4], a[5], a[6]};
    else return L{a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]};
}

}  // namespace lossfuncs
