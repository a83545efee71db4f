// What ap_int.h and ap_fixed.h of this folder share: raw values, rounding, overflow and comparison.
//
// These headers stand in for the vendor's while g++ emulates a design: they are small, so that a design compiles in
// a second, and every number lies in the smallest C integer that holds it, so that it runs fast. Results are those of
// the vendor's headers bit by bit, its special cases included (tests/test_emulation_header.py compares them).
// Not in them: AP_WRAP_SM, numbers beyond 128 bits (127 unsigned), strings other than streams,
// concatenation, the class hls::vector. A static_assert says so, and the vendor's headers are one option away.

#ifndef FLOW_EMULATION_AP_NUMBERS_H_
#define FLOW_EMULATION_AP_NUMBERS_H_

#include <cstdint>
#include <cstring>
#include <istream>
#include <ostream>
#include <type_traits>

#define AP_MAX(a, b) ((a) > (b) ? (a) : (b))
#define AP_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FLOW_INLINE inline __attribute__((always_inline))

enum ap_q_mode { AP_RND, AP_RND_ZERO, AP_RND_MIN_INF, AP_RND_INF, AP_RND_CONV, AP_TRN, AP_TRN_ZERO };
enum ap_o_mode { AP_SAT, AP_SAT_ZERO, AP_SAT_SYM, AP_WRAP, AP_WRAP_SM };

template <int W, bool S> struct ap_int_base;
template <int W> struct ap_int;
template <int W> struct ap_uint;
template <int W, int I, bool S = true, ap_q_mode Q = AP_TRN, ap_o_mode O = AP_WRAP, int N = 0> struct ap_fixed_base;
template <int W, int I, ap_q_mode Q = AP_TRN, ap_o_mode O = AP_WRAP, int N = 0> struct ap_fixed;
template <int W, int I, ap_q_mode Q = AP_TRN, ap_o_mode O = AP_WRAP, int N = 0> struct ap_ufixed;

namespace flow_ap {

typedef __int128 int128;
typedef unsigned __int128 uint128;

constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr int smaller(int a, int b) { return a < b ? a : b; }

// The index of the smallest C integer of at least this many bits.
constexpr int rank(int bits) {
    return bits <= 8 ? 0 : bits <= 16 ? 1 : bits <= 32 ? 2 : bits <= 64 ? 3 : bits <= 128 ? 4 : 5;
}

template <int RANK> struct c_integer {
    static_assert(RANK < 5, "flow-emulation: a number must have at most 128 bits (127 unsigned)");
    typedef int128 s;
    typedef uint128 u;
};
template <> struct c_integer<0> { typedef int8_t s; typedef uint8_t u; };
template <> struct c_integer<1> { typedef int16_t s; typedef uint16_t u; };
template <> struct c_integer<2> { typedef int32_t s; typedef uint32_t u; };
template <> struct c_integer<3> { typedef int64_t s; typedef uint64_t u; };
template <> struct c_integer<4> { typedef int128 s; typedef uint128 u; };

// A number of W bits is kept sign- or zero-extended.
template <int W, bool S> struct storage {
    static_assert(S || W < 128, "flow-emulation: an unsigned number must have at most 127 bits");
    typedef typename std::conditional<S, typename c_integer<rank(W)>::s, typename c_integer<rank(W)>::u>::type type;
};
template <int W, bool S> using raw = typename storage<W, S>::type;

// A signed C integer of at least this many bits in which to calculate.
template <int BITS> using wide = typename c_integer<larger(rank(BITS), 2)>::s;
template <int BITS> using uwide = typename c_integer<larger(rank(BITS), 2)>::u;

// Bits that a signed integer needs for every number of W bits.
constexpr int span(int width, bool is_signed) { return width + !is_signed; }

// Keep the lowest W bits and extend them.
template <int W, bool S, class T> FLOW_INLINE raw<W, S> wrap(T x) {
    constexpr int HELD = 8 * sizeof(raw<W, S>);
    if constexpr (HELD == W)
        return raw<W, S>(x);
    else if constexpr (S) {
        typedef wide<W> M;
        constexpr int SPARE = 8 * sizeof(M) - W;
        return raw<W, S>(M(uwide<W>(x) << SPARE) >> SPARE);
    } else
        return raw<W, S>(uwide<W>(x) & ((uwide<W>(1) << W) - 1));
}

template <int W, bool S, class M> constexpr M highest() { return M((uwide<span(W, S)>(1) << (W - S)) - 1); }
template <int W, bool S, class M> constexpr M lowest() { return S ? M(-highest<W, S, M>() - 1) : M(0); }

// What is added to a number rounded down: `half` is the first bit cut off, `rest` says whether a lower one is set.
template <ap_q_mode Q> FLOW_INLINE bool increment(bool half, bool rest, bool negative, bool odd) {
    if constexpr (Q == AP_RND)
        return half;
    else if constexpr (Q == AP_RND_ZERO)
        return half & (negative | rest);
    else if constexpr (Q == AP_RND_MIN_INF)
        return half & rest;
    else if constexpr (Q == AP_RND_INF)
        return half & (!negative | rest);
    else if constexpr (Q == AP_RND_CONV)
        return half & (odd | rest);
    else if constexpr (Q == AP_TRN_ZERO)
        return negative & (half | rest);
    else
        return false;
}

// Shift right by SHIFT > 0 and round; the result fits M as x does. WIDTH: the bits of x.
template <ap_q_mode Q, int SHIFT, int WIDTH, class M> FLOW_INLINE M round_off(M x) {
    constexpr int BITS = 8 * sizeof(M);
    const M floor = x >> smaller(SHIFT, BITS - 1);
    if constexpr (Q == AP_TRN)
        return floor;
    else {
        const bool half = (x >> smaller(SHIFT - 1, BITS - 1)) & 1;
        bool rest;
        if constexpr (SHIFT > WIDTH)
            rest = x != 0;
        else
            rest = (x & M((uwide<BITS>(1) << (SHIFT - 1)) - 1)) != 0;
        return floor + increment<Q>(half, rest, x < 0, floor & 1);
    }
}

// What becomes of a number that does not fit; `low` are its lowest W bits or more.
template <int W, bool S, ap_o_mode O, int N, class T>
FLOW_INLINE raw<W, S> overflowed(bool above, bool negative, T low) {
    static_assert(O != AP_WRAP_SM, "flow-emulation: AP_WRAP_SM must not be used");
    typedef wide<span(W, S)> M;
    if constexpr (O == AP_SAT_ZERO)
        return 0;
    else if constexpr (O == AP_WRAP) {
        typedef uwide<W> U;
        constexpr U KEPT = N >= W ? U(0) : (U(1) << (W - N)) - 1;
        constexpr U SIGN = U(1) << (W - 1);
        const U bits = U(low);
        if constexpr (!S)
            return wrap<W, S>(bits | ~KEPT);
        else
            return wrap<W, S>(negative ? (bits & KEPT) | SIGN : ((bits & KEPT) | ~KEPT) & ~SIGN);
    } else if (above)
        return raw<W, S>(highest<W, S, M>());
    else
        return raw<W, S>(lowest<W, S, M>() + (S && O == AP_SAT_SYM));
}

// Fit a number, which an integer of BITS bits holds, into W bits.
template <int W, bool S, ap_o_mode O, int N, int BITS, class M> FLOW_INLINE raw<W, S> fit(M x) {
    if constexpr (O == AP_WRAP && N == 0)
        return wrap<W, S>(x);
    else if constexpr (O == AP_SAT || O == AP_SAT_SYM) {
        typedef wide<larger(BITS, span(W, S))> L;
        constexpr L HIGH = highest<W, S, L>();
        constexpr L LOW = lowest<W, S, L>() + (S && O == AP_SAT_SYM);
        const L y = x;
        return raw<W, S>(y > HIGH ? HIGH : y < LOW ? LOW : y);
    } else {
        typedef wide<larger(BITS, span(W, S))> L;
        const L y = x;
        const bool above = y > highest<W, S, L>(), below = y < lowest<W, S, L>();
        if (above || below)
            return overflowed<W, S, O, N>(above, below, y);
        return raw<W, S>(y);
    }
}

// Turn a number of W2 bits, F2 of them behind the point, into one of W bits with F behind the point.
template <int W, int F, bool S, ap_q_mode Q, ap_o_mode O, int N, int W2, int F2, bool S2>
FLOW_INLINE raw<W, S> convert(raw<W2, S2> x) {
    constexpr int CUT = F2 - F;
    if constexpr (CUT > 0) {
        constexpr int BITS = span(W2, S2);
        return fit<W, S, O, N, BITS>(round_off<Q, CUT, W2>(wide<BITS>(x)));
    } else if constexpr (O == AP_WRAP && N == 0) {
        constexpr int BITS = larger(W, span(W2, S2));
        if constexpr (-CUT >= W)
            return 0;
        else
            return wrap<W, S>(uwide<BITS>(wide<BITS>(x)) << -CUT);
    } else {
        constexpr int BITS = span(W2, S2) - CUT;
        return fit<W, S, O, N, BITS>(wide<BITS>(uwide<BITS>(wide<BITS>(x)) << -CUT));
    }
}

// A double's sign and mantissa, and the exponent that belongs to them; as the vendor's headers do, subnormal
// numbers get a leading one, infinities and NaN an exponent like others.
struct parts {
    int64_t mantissa; // with the sign, 54 bits
    int exponent;     // value = mantissa * 2^exponent
};

inline parts split(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits << 1) == 0)
        return {0, 0};
    const int64_t mantissa = int64_t((bits & ((uint64_t(1) << 52) - 1)) | uint64_t(1) << 52);
    return {bits >> 63 ? -mantissa : mantissa, int(bits >> 52 & 0x7ff) - 1023 - 52};
}

// Round a double to W bits with F behind the point.
template <int W, int F, bool S, ap_q_mode Q, ap_o_mode O, int N> raw<W, S> from_double(double value) {
    const parts in = split(value);
    const int cut = -(in.exponent + F);
    if (cut > 0) {
        const int shift = cut < 56 ? cut : 56;
        const int64_t floor = in.mantissa >> shift;
        const bool half = in.mantissa >> (shift - 1) & 1;
        const bool rest = (in.mantissa & ((int64_t(1) << (shift - 1)) - 1)) != 0;
        return fit<W, S, O, N, 55>(floor + increment<Q>(half, rest, in.mantissa < 0, floor & 1));
    }
    typedef wide<larger(span(W, S), 54)> M;
    const int left = -cut;
    const M low = left < W ? M(uwide<8 * sizeof(M)>(M(in.mantissa)) << left) : M(0);
    if constexpr (O == AP_WRAP && N == 0)
        return wrap<W, S>(low);
    else {
        const int by = left < int(8 * sizeof(M)) ? left : int(8 * sizeof(M)) - 1;
        const bool above = in.mantissa > (highest<W, S, M>() >> by), below = in.mantissa < (lowest<W, S, M>() >> by);
        if (above || below)
            return overflowed<W, S, O, N>(above, below, low);
        return fit<W, S, O, N, 8 * sizeof(M)>(low);
    }
}

// Compare as the vendor's headers do: a signed number is taken as an unsigned one where that is as wide or wider
// and has 32 bits or more, as in C.
template <int W, bool S, int W2, bool S2> struct comparison {
    static constexpr int BITS = larger(span(W, S), span(W2, S2));
    static constexpr int SIGNED_WIDTH = S ? W : W2, UNSIGNED_WIDTH = S ? W2 : W;
    static constexpr bool MIXED = S != S2;
    static constexpr bool AS_C = MIXED && UNSIGNED_WIDTH >= 32 && UNSIGNED_WIDTH >= SIGNED_WIDTH;
    // For == it must be wider, or fill its C integer.
    static constexpr bool EQUAL_BITS = AS_C && (UNSIGNED_WIDTH > SIGNED_WIDTH || UNSIGNED_WIDTH >= 64);
    typedef typename std::conditional<(S || S2), wide<BITS>, uwide<larger(W, W2)>>::type common;

    static FLOW_INLINE bool less(raw<W, S> a, raw<W2, S2> b) {
        if constexpr (AS_C) { // a negative number counts as a huge one
            if (S ? a < 0 : b < 0)
                return !S;
        }
        return common(a) < common(b);
    }
    static FLOW_INLINE bool equal(raw<W, S> a, raw<W2, S2> b) {
        if constexpr (EQUAL_BITS)
            return wrap<UNSIGNED_WIDTH, false>(a) == wrap<UNSIGNED_WIDTH, false>(b);
        else
            return common(a) == common(b);
    }
};

// Shift by a number known only at run time; what leaves W bits is lost.
template <int W, bool S> FLOW_INLINE raw<W, S> shift_left(raw<W, S> x, int64_t by) {
    if (by >= 0)
        return by >= W ? raw<W, S>(0) : wrap<W, S>(uwide<W>(x) << by);
    return raw<W, S>(-by >= W ? (x < 0 ? -1 : 0) : x >> -by);
}

// Width and sign of C's integers.
template <class T> struct c_type {
    static constexpr int WIDTH = std::is_same<T, bool>::value ? 1 : 8 * sizeof(T);
    static constexpr bool SIGNED = std::is_signed<T>::value;
};
template <class T> using if_integral = typename std::enable_if<std::is_integral<T>::value, int>::type;

} // namespace flow_ap

#endif
