"""C++ programs that calculate with ap_fixed and ap_int and print digests; compiled once with each set of headers.

A case is one line of C++ and prints one line: what it is and a digest of every result, over all values of narrow
numbers and over edges and random values of wide ones.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIGHT = ROOT / "hls_templates" / "cpp" / "emulation"
ROUNDING = ("RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO")
OVERFLOW = ("SAT, 0", "SAT_ZERO, 0", "SAT_SYM, 0", "WRAP, 0", "WRAP, 1", "WRAP, 2")

C_TYPES = ("bool", "signed char", "unsigned char", "short", "int", "unsigned", "long", "unsigned long long")

SOURCE = r"""
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <vector>
#include "ap_fixed.h"
#include "ap_int.h"

typedef unsigned __int128 bits_t;

// Every result goes into one digest: its type and its bits.
#ifndef SHOW
#define SHOW 0
#endif
static uint64_t state;
static void add(uint64_t x) {
    if (SHOW)
        std::printf("%llx\n", (unsigned long long)x);
    state = (state ^ x) * 0x9E3779B97F4A7C15u;
    state ^= state >> 29;
}
template <class T> bits_t bits(const T &x) {
    bits_t all = 0;
    for (int low = 0; low < T::width; low += 32) {
        const int high = low + 31 < T::width ? low + 31 : T::width - 1;
        all |= bits_t(x.range(high, low).to_uint64()) << low;
    }
    return all;
}
template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O, int N> void take(const ap_fixed_base<W, I, S, Q, O, N> &x) {
    add(W * 1000003 + I * 1009 + S), add(Q * 100 + O * 10 + N), add(bits(x)), add(bits(x) >> 64);
}
template <int W, bool S> void take(const ap_int_base<W, S> &x) { add(W * 11 + S), add(bits(x)), add(bits(x) >> 64); }
static void take(bool x) { add(x); }
static void take(int64_t x) { add(uint64_t(x)); }
static void take(long long x) { add(uint64_t(x)); }
static void take(double x) {
    uint64_t raw;
    std::memcpy(&raw, &x, 8);
    add(raw);
}
static void take(float x) { take(double(x)); }

static bits_t random_bits() {
    static uint64_t seed = 88172645463325252u;
    bits_t result = 0;
    for (int i = 0; i < 2; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        result = result << 64 | seed;
    }
    return result;
}
template <class T> T make(bits_t raw) {
    T x = 0;
    for (int low = 0; low < T::width; low += 32) {
        const int high = low + 31 < T::width ? low + 31 : T::width - 1;
        x.range(high, low) = ap_uint<32>((unsigned)(raw >> low));
    }
    return x;
}
template <class T> std::vector<T> values(int limit) {
    std::vector<T> all;
    if (T::width <= limit) {
        for (unsigned i = 0; i < 1u << T::width; i++)
            all.push_back(make<T>(i));
        return all;
    }
    const bits_t top = bits_t(1) << (T::width - 1), ones = ~bits_t(0);
    const bits_t ends[] = {0, 1, 2, top - 1, top, top + 1, top - 2, top | top >> 1, ones, ones - 1};
    for (bits_t raw : ends)
        all.push_back(make<T>(raw));
    for (int i = 0; i < 40; i++)
        all.push_back(make<T>(random_bits() >> (i % 4 * T::width / 4)));
    return all;
}
static void begin() { state = 1; }
static void end(const char *name) { std::printf("%s %016llx\n", name, (unsigned long long)state); }

template <class A, class B> void conversion(const char *name) {
    begin();
    for (A a : values<A>(10)) {
        const B made(a);
        B assigned = 0;
        assigned = a;
        take(made); take(assigned);
    }
    end(name);
}

template <class A, class B> void arithmetic(A a, B b) {
    take(a + b); take(a - b); take(a * b); take(a & b); take(a | b); take(a ^ b);
    take(a == b); take(a != b); take(a < b); take(a > b); take(a <= b); take(a >= b);
    A c;
    c = a; c += b; take(c);
    c = a; c -= b; take(c);
    c = a; c *= b; take(c);
    c = a; c &= b; take(c);
    c = a; c |= b; take(c);
    c = a; c ^= b; take(c);
    if (b != 0) {
        take(a / b);
        c = a; c /= b; take(c);
    }
}
template <class A, class B> void pair(const char *name) {
    begin();
    for (A a : values<A>(6))
        for (B b : values<B>(6))
            arithmetic(a, b);
    end(name);
}
template <class A, class B> void integers(const char *name) {
    begin();
    for (A a : values<A>(6))
        for (B b : values<B>(6)) {
            arithmetic(a, b);
            A c = a;
            if (b != 0) {
                take(a % b);
                c %= b;
                take(c);
            }
            if (B::width < 9) {
                take(a << b); take(a >> b);
                c = a; c <<= b; take(c);
                c = a; c >>= b; take(c);
            }
        }
    end(name);
}
template <class A, class C> void with_c(const char *name) {
    const C large = C(1000000007);
    const C all[] = {C(0), C(1), C(2), C(3), C(7), C(-1), C(-2), C(-5), C(100), C(127), C(-128), large, C(-large)};
    begin();
    for (A a : values<A>(6))
        for (C c : all) {
            arithmetic(a, c);
            take(c + a); take(c - a); take(c * a); take(c & a); take(c | a); take(c ^ a);
            take(c == a); take(c != a); take(c < a); take(c > a); take(c <= a); take(c >= a);
            if (a != 0)
                take(c / a);
        }
    for (C c : all) {
        const A made(c);
        A assigned = 0;
        assigned = c;
        take(made); take(assigned);
    }
    end(name);
}
// The vendor's ++ does not compile where no bit of the number has the weight 1.
template <class A> struct has_units : std::true_type {};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
struct has_units<ap_fixed<W, I, Q, O, N>> : std::integral_constant<bool, (W >= I)> {};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N>
struct has_units<ap_ufixed<W, I, Q, O, N>> : std::integral_constant<bool, (W >= I)> {};
template <class A> void step(A &c, std::true_type) {
    take(c++); take(c); take(c--); take(c); take(++c); take(--c);
}
template <class A> void step(A &, std::false_type) {}
template <class A> void unary(const char *name) {
    begin();
    for (A a : values<A>(10)) {
        take(-a); take(~a); take(!a); take(a.to_double()); take(a.to_float());
        take((long long)a.to_int64()); take((int64_t)a.to_int()); take((int64_t)a.to_uint()); take(a.is_zero());
        A c = a;
        step(c, std::integral_constant<bool, (has_units<A>::value)>());
        for (int by = -A::width - 1; by <= A::width + 1; by++) {
            take(a << by); take(a >> by);
            c = a; c <<= by; take(c);
            c = a; c >>= by; take(c);
        }
        for (int high = 0; high < A::width; high += 1 + A::width / 8)
            for (int low = 0; low < A::width; low += 1 + A::width / 8) {
                if (high < low && A::width > 64)
                    continue;
                take((long long)a.range(high, low).to_uint64());
                take((long long)a(high, low).to_int());
                c = a;
                c.range(high, low) = 0x155;
                take(c);
            }
        for (int i = 0; i < A::width; i++) {
            take(bool(a[i]));
            c = a; c[i] = !a[i];
            take(c);
        }
    }
    end(name);
}
template <class A> void from_double(const char *name) {
    const double infinity = 1.0 / 0.0;
    std::vector<double> all = {0.0, 1e-320, 1e300, infinity, 1e-30, 0.25};
    for (int i = 0; i < 6; i++)
        all.push_back(-all[i]);
    for (int step = -600; step <= 600; step++)
        all.push_back(step / 16.0);
    for (int i = 0; i < 4000; i++)
        all.push_back((double)(int64_t)random_bits() * __builtin_ldexp(1.0, -64 + i % 80 - 30));
    begin();
    for (double x : all) {
        const A made(x);
        A assigned = 0;
        assigned = x;
        take(made); take(assigned); take(A(float(x)));
        take(made < x); take(made == x); take(made >= x);
    }
    end(name);
}

int main() {
CASES
}
"""


def compile_and_run(cases: Sequence[str], folders: Sequence[Path], work: Path, *options: str) -> list[str]:
    """Compile the cases with the headers in ``folders`` and return the lines that they print."""
    work.mkdir(parents=True, exist_ok=True)
    source, program = work / "cases.cpp", work / "cases"
    source.write_text(SOURCE.replace("CASES", "\n".join(f"    {case}" for case in cases)), encoding="utf-8")
    includes = [f"-I{folder}" for folder in folders]
    done = subprocess.run(
        ["g++", "-std=c++17", "-O0", "-w", "-DNDEBUG", *options, *includes, str(source), "-o", str(program)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:4000]
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def vendor() -> Path:
    """Return the folder of the headers that hls4ml ships."""
    import hls4ml

    return Path(hls4ml.__file__).parent / "templates" / "vivado" / "ap_types"


def differences(cases: Sequence[str], work: Path) -> list[str]:
    """Return the lines of the cases whose digests differ between our headers and the vendor's."""
    ours = compile_and_run(cases, [LIGHT], work / "light")
    theirs = compile_and_run(cases, [vendor()], work / "vendor")
    assert len(ours) == len(theirs) == len(cases)
    return [
        f"{mine}, vendor {other[-16:]}" for mine, other in zip(ours, theirs, strict=True) if mine != other
    ]


def case(function: str, *types: str) -> str:
    """Return the C++ line that runs one case."""
    name = " ".join((function, *(one.replace(" ", "") for one in types)))
    return f'{function}<{", ".join(types)}>("{name}");'


def fixed(draw: random.Random, widths: tuple[int, int], modes: str = "") -> str:
    """Return a random fixed-point type."""
    width = draw.randint(*widths)
    kind = draw.choice(("ap_fixed", "ap_ufixed"))
    return f"{kind}<{width}, {width - draw.randint(-2, width + 2)}{modes}>"


def integer(draw: random.Random, widths: tuple[int, int]) -> str:
    """Return a random integer type."""
    return f"{draw.choice(('ap_int', 'ap_uint'))}<{draw.randint(*widths)}>"


def conversions(draw: random.Random, source: tuple[int, int], target: tuple[int, int]) -> list[str]:
    """Return a conversion into each combination of rounding and overflow, between random types."""
    return [
        case("conversion", fixed(draw, source), fixed(draw, target, f", AP_{rounding}, AP_{overflow}"))
        for rounding in ROUNDING
        for overflow in OVERFLOW
    ]


def operations(draw: random.Random, count: int) -> list[str]:
    """Return ``count`` random cases of every other kind."""

    def modes() -> str:
        return f", AP_{draw.choice(ROUNDING)}, AP_{draw.choice(OVERFLOW)}"

    def number(widths: tuple[int, int]) -> str:
        return draw.choice((fixed(draw, widths, modes()), integer(draw, widths)))

    cases = []
    for _ in range(count):
        cases += [
            case("pair", fixed(draw, (2, 6), modes()), fixed(draw, (1, 6))),
            case("pair", fixed(draw, (7, 40), modes()), fixed(draw, (7, 40))),
            case("pair", fixed(draw, (2, 20), modes()), integer(draw, (1, 20))),
            case("integers", integer(draw, (1, 6)), integer(draw, (1, 6))),
            case("integers", integer(draw, (7, 60)), integer(draw, (7, 60))),
            case("with_c", number((3, 40)), draw.choice(C_TYPES)),
            case("unary", number((1, 9))),
            case("unary", number((10, 60))),
            case("from_double", number((3, 40))),
            case("from_double", number((41, 70))),
        ]
    return cases
