// ap_fixed and ap_ufixed for emulation with g++; see ap_numbers.h.

#ifndef FLOW_EMULATION_AP_FIXED_H_
#define FLOW_EMULATION_AP_FIXED_H_

#include "ap_int.h"

template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O, int N>
struct ap_fixed_base : ap_bits<ap_fixed_base<W, I, S, Q, O, N>> {
    static const int width = W;
    static const int iwidth = I;
    static const ap_q_mode qmode = Q;
    static const ap_o_mode omode = O;
    static const bool is_signed = S;
    static constexpr int F = W - I; // bits behind the point

    flow_ap::raw<W, S> V;

    // The types of results with another operand.
    template <int W2, int I2, bool S2> struct RType {
        static constexpr int F2 = W2 - I2;
        static constexpr int WHOLE = flow_ap::larger(I + (S2 && !S), I2 + (S && !S2));
        static constexpr int FRACTION = flow_ap::larger(F, F2);
        template <int BITS, int INT, bool SIGN>
        using number = typename std::conditional<SIGN, ap_fixed<BITS, INT>, ap_ufixed<BITS, INT>>::type;
        typedef number<W + W2, I + I2, S || S2> mult;
        typedef number<WHOLE + 1 + FRACTION, WHOLE + 1, S || S2> plus;
        typedef number<WHOLE + 1 + FRACTION, WHOLE + 1, true> minus;
        typedef number<S2 + W + flow_ap::larger(F2, 0), S2 + I + F2, S || S2> div;
        typedef number<WHOLE + FRACTION, WHOLE, S || S2> logic;
    };

    ap_fixed_base() = default;
    template <int W2, int I2, bool S2, ap_q_mode Q2, ap_o_mode O2, int N2>
    FLOW_INLINE ap_fixed_base(const ap_fixed_base<W2, I2, S2, Q2, O2, N2> &x)
        : V(flow_ap::convert<W, F, S, Q, O, N, W2, W2 - I2, S2>(x.V)) {}
    template <int W2, bool S2>
    FLOW_INLINE ap_fixed_base(const ap_int_base<W2, S2> &x) : V(flow_ap::convert<W, F, S, Q, O, N, W2, 0, S2>(x.V)) {}
    template <class X> FLOW_INLINE ap_fixed_base(const ap_range_ref<X> &x) : ap_fixed_base(x.get()) {}
    template <class X> FLOW_INLINE ap_fixed_base(const ap_bit_ref<X> &x) : ap_fixed_base(x.get()) {}
    template <class T, flow_ap::if_integral<T> = 0>
    FLOW_INLINE ap_fixed_base(T x)
        : V(flow_ap::convert<W, F, S, Q, O, N, flow_ap::c_type<T>::WIDTH, 0, flow_ap::c_type<T>::SIGNED>(x)) {}
    ap_fixed_base(double x) : V(flow_ap::from_double<W, F, S, Q, O, N>(x)) {}
    ap_fixed_base(float x) : V(flow_ap::from_double<W, F, S, Q, O, N>(x)) {}

    FLOW_INLINE ap_fixed_base &setBits(unsigned long long bits) {
        V = flow_ap::wrap<W, S>(bits);
        return *this;
    }
    static ap_fixed_base bitsToFixed(unsigned long long bits) { return ap_fixed_base().setBits(bits); }

    // The whole part, rounded towards zero (or down). Without whole bits it has one bit, which the vendor's headers
    // set for negative numbers.
    FLOW_INLINE ap_int_base<flow_ap::larger(I, 1), S> to_ap_int_base(bool towards_zero = true) const {
        constexpr int WHOLE = flow_ap::larger(I, 1);
        typedef ap_int_base<WHOLE, S> R;
        if constexpr (I <= 0)
            return made<R>(towards_zero && V < 0 ? -1 : 0);
        else if (towards_zero && I < W)
            return made<R>(flow_ap::convert<WHOLE, 0, S, AP_TRN_ZERO, AP_WRAP, 0, W, F, S>(V));
        else
            return made<R>(flow_ap::convert<WHOLE, 0, S, AP_TRN, AP_WRAP, 0, W, F, S>(V));
    }
    char to_char() const { return to_ap_int_base().to_char(); }
    FLOW_INLINE int to_int() const { return to_ap_int_base().to_int(); }
    FLOW_INLINE unsigned to_uint() const { return to_ap_int_base().to_uint(); }
    FLOW_INLINE long long to_int64() const { return to_ap_int_base().to_int64(); }
    FLOW_INLINE unsigned long long to_uint64() const { return to_ap_int_base().to_uint64(); }
    FLOW_INLINE double to_double() const { return double(V) * __builtin_ldexp(1.0, -F); }
    FLOW_INLINE float to_float() const { return float(V) * __builtin_ldexpf(1.0f, -F); }

    FLOW_INLINE operator bool() const { return V != 0; }
    FLOW_INLINE operator double() const { return to_double(); }
    FLOW_INLINE operator float() const { return to_float(); }
    FLOW_INLINE operator long double() const { return to_double(); }
    FLOW_INLINE operator char() const { return char(to_int()); }
    FLOW_INLINE operator signed char() const { return (signed char)to_int(); }
    FLOW_INLINE operator unsigned char() const { return (unsigned char)to_uint(); }
    FLOW_INLINE operator short() const { return short(to_int()); }
    FLOW_INLINE operator unsigned short() const { return (unsigned short)to_uint(); }
    FLOW_INLINE operator int() const { return to_int(); }
    FLOW_INLINE operator unsigned() const { return to_uint(); }
    FLOW_INLINE operator long() const { return long(to_int64()); }
    FLOW_INLINE operator unsigned long() const { return (unsigned long)to_uint64(); }
    FLOW_INLINE operator long long() const { return to_int64(); }
    FLOW_INLINE operator unsigned long long() const { return to_uint64(); }

    bool is_zero() const { return V == 0; }
    bool is_neg() const { return V < 0; }
    int wl() const { return W; }
    int iwl() const { return I; }
    ap_q_mode q_mode() const { return Q; }
    ap_o_mode o_mode() const { return O; }
    int n_bits() const { return N; }
    bool get_bit(int i) const { return (*this)[i + F]; }

    FLOW_INLINE bool operator!() const { return V == 0; }
    FLOW_INLINE ap_fixed_base operator+() const { return *this; }
    FLOW_INLINE ap_fixed_base<W + 1, I + 1, true> operator-() const {
        typedef ap_fixed_base<W + 1, I + 1, true> R;
        return made<R>(flow_ap::raw<W + 1, true>(-flow_ap::wide<W + 1>(V)));
    }
    FLOW_INLINE ap_fixed_base<W, I, S> operator~() const {
        return made<ap_fixed_base<W, I, S>>(flow_ap::wrap<W, S>(~V));
    }

    FLOW_INLINE ap_fixed_base &operator++() { return *this += ap_fixed_base<F + 1, 1, false>(1); }
    FLOW_INLINE ap_fixed_base &operator--() { return *this -= ap_fixed_base<F + 1, 1, false>(1); }
    FLOW_INLINE const ap_fixed_base operator++(int) {
        const ap_fixed_base old = *this;
        ++*this;
        return old;
    }
    FLOW_INLINE const ap_fixed_base operator--(int) {
        const ap_fixed_base old = *this;
        --*this;
        return old;
    }

    template <class T> static FLOW_INLINE T made(flow_ap::raw<T::width, T::is_signed> value) {
        T result;
        result.V = value;
        return result;
    }
};

#define FLOW_FIXED template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O, int N
#define FLOW_A const ap_fixed_base<W, I, S, Q, O, N> &a
#define FLOW_TWO FLOW_FIXED, int W2, int I2, bool S2, ap_q_mode Q2, ap_o_mode O2, int N2>
#define FLOW_B const ap_fixed_base<W2, I2, S2, Q2, O2, N2> &b
#define FLOW_RESULT(NAME) typename ap_fixed_base<W, I, S>::template RType<W2, I2, S2>::NAME
#define FLOW_C_INT(T, x) ap_fixed_base<flow_ap::c_type<T>::WIDTH, flow_ap::c_type<T>::WIDTH, flow_ap::c_type<T>::SIGNED>(x)

// The other operand may be an integer: it counts as fixed point without a fraction.
#define FLOW_WITH_INTEGERS(SYM)                                                                                        \
    FLOW_FIXED, class T, flow_ap::if_integral<T> = 0> FLOW_INLINE auto operator SYM(FLOW_A, T b) {                     \
        return a SYM FLOW_C_INT(T, b);                                                                                 \
    }                                                                                                                  \
    FLOW_FIXED, class T, flow_ap::if_integral<T> = 0> FLOW_INLINE auto operator SYM(T b, FLOW_A) {                     \
        return FLOW_C_INT(T, b) SYM a;                                                                                 \
    }                                                                                                                  \
    FLOW_FIXED, int W2, bool S2> FLOW_INLINE auto operator SYM(FLOW_A, const ap_int_base<W2, S2> &b) {                 \
        return a SYM ap_fixed_base<W2, W2, S2>(b);                                                                     \
    }                                                                                                                  \
    FLOW_FIXED, int W2, bool S2> FLOW_INLINE auto operator SYM(const ap_int_base<W2, S2> &b, FLOW_A) {                 \
        return ap_fixed_base<W2, W2, S2>(b) SYM a;                                                                     \
    }

#define FLOW_ASSIGN(SYM)                                                                                               \
    FLOW_TWO FLOW_INLINE ap_fixed_base<W, I, S, Q, O, N> &operator SYM##=(ap_fixed_base<W, I, S, Q, O, N> &a, FLOW_B) {\
        return a = ap_fixed_base<W, I, S, Q, O, N>(a SYM b);                                                           \
    }                                                                                                                  \
    FLOW_FIXED, class T, flow_ap::if_integral<T> = 0>                                                                  \
    FLOW_INLINE ap_fixed_base<W, I, S, Q, O, N> &operator SYM##=(ap_fixed_base<W, I, S, Q, O, N> &a, T b) {            \
        return a = ap_fixed_base<W, I, S, Q, O, N>(a SYM b);                                                           \
    }                                                                                                                  \
    FLOW_FIXED, int W2, bool S2>                                                                                       \
    FLOW_INLINE ap_fixed_base<W, I, S, Q, O, N> &operator SYM##=(ap_fixed_base<W, I, S, Q, O, N> &a,                   \
                                                                 const ap_int_base<W2, S2> &b) {                       \
        return a = ap_fixed_base<W, I, S, Q, O, N>(a SYM b);                                                           \
    }

// Align the points, then calculate.
#define FLOW_ALIGNED(SYM, NAME)                                                                                        \
    FLOW_TWO FLOW_INLINE FLOW_RESULT(NAME) operator SYM(FLOW_A, FLOW_B) {                                              \
        typedef FLOW_RESULT(NAME) R;                                                                                   \
        typedef flow_ap::wide<flow_ap::span(R::width, R::is_signed)> M;                                                \
        constexpr int UP = R::F - (W - I), UP2 = R::F - (W2 - I2);                                                     \
        const M x = M(a.V) * (M(1) << UP), y = M(b.V) * (M(1) << UP2);                                                 \
        return ap_fixed_base<W, I, S>::template made<R>(flow_ap::wrap<R::width, R::is_signed>(M(x SYM y)));            \
    }                                                                                                                  \
    FLOW_WITH_INTEGERS(SYM)                                                                                            \
    FLOW_ASSIGN(SYM)

FLOW_ALIGNED(+, plus)
FLOW_ALIGNED(-, minus)
FLOW_ALIGNED(&, logic)
FLOW_ALIGNED(|, logic)
FLOW_ALIGNED(^, logic)

FLOW_TWO FLOW_INLINE FLOW_RESULT(mult) operator*(FLOW_A, FLOW_B) {
    typedef FLOW_RESULT(mult) R;
    typedef flow_ap::wide<flow_ap::smaller(flow_ap::span(R::width, R::is_signed), 128)> M;
    return ap_fixed_base<W, I, S>::template made<R>(flow_ap::raw<R::width, R::is_signed>(M(a.V) * M(b.V)));
}
FLOW_WITH_INTEGERS(*)
FLOW_ASSIGN(*)

// The vendor's headers divide without a bit to spare: the smallest number divided by -1 stays what it is.
FLOW_TWO FLOW_INLINE FLOW_RESULT(div) operator/(FLOW_A, FLOW_B) {
    typedef FLOW_RESULT(div) R;
    constexpr int UP = flow_ap::larger(W2 - I2, 0);
    constexpr int BITS = flow_ap::larger(W + UP + (S2 && !S), W2 + (S && !S2));
    typedef flow_ap::wide<BITS + 1> M;
    const M quotient = M(a.V) * (M(1) << UP) / M(b.V);
    return ap_fixed_base<W, I, S>::template made<R>(
        flow_ap::wrap<R::width, R::is_signed>(flow_ap::wrap<BITS, S || S2>(quotient)));
}
FLOW_FIXED, class T, flow_ap::if_integral<T> = 0> FLOW_INLINE auto operator/(FLOW_A, T b) {
    return a / FLOW_C_INT(T, b);
}
FLOW_FIXED, class T, flow_ap::if_integral<T> = 0> FLOW_INLINE auto operator/(T b, FLOW_A) {
    typedef flow_ap::c_type<T> C; // the quotient has the type that it had if the number were on the left
    return typename ap_fixed_base<W, I, S>::template RType<C::WIDTH, C::WIDTH, C::SIGNED>::div(FLOW_C_INT(T, b) / a);
}
FLOW_FIXED, int W2, bool S2> FLOW_INLINE auto operator/(FLOW_A, const ap_int_base<W2, S2> &b) {
    return a / ap_fixed_base<W2, W2, S2>(b);
}
FLOW_FIXED, int W2, bool S2> FLOW_INLINE auto operator/(const ap_int_base<W2, S2> &b, FLOW_A) {
    return ap_fixed_base<W2, W2, S2>(b) / a;
}
FLOW_ASSIGN(/)

// Shifts keep the type of their left operand; they neither round nor saturate.
#define FLOW_SHIFT(SYM, MINUS)                                                                                         \
    FLOW_FIXED, class T, flow_ap::if_integral<T> = 0>                                                                  \
    FLOW_INLINE ap_fixed_base<W, I, S, Q, O, N> operator SYM(FLOW_A, T b) {                                            \
        return ap_fixed_base<W, I, S>::template made<ap_fixed_base<W, I, S, Q, O, N>>(                                 \
            flow_ap::shift_left<W, S>(a.V, MINUS int64_t(b)));                                                         \
    }                                                                                                                  \
    FLOW_FIXED, int W2, bool S2>                                                                                       \
    FLOW_INLINE ap_fixed_base<W, I, S, Q, O, N> operator SYM(FLOW_A, const ap_int_base<W2, S2> &b) {                   \
        return a SYM int64_t(b.V);                                                                                     \
    }                                                                                                                  \
    FLOW_TWO FLOW_INLINE ap_fixed_base<W, I, S, Q, O, N> operator SYM(FLOW_A, FLOW_B) { return a SYM b.to_int(); }     \
    FLOW_ASSIGN(SYM)
FLOW_SHIFT(<<, +)
FLOW_SHIFT(>>, -)

// Widths of the operands when their points are aligned, as the vendor's headers choose them.
#define FLOW_COMPARISON(SYM, EXPRESSION)                                                                               \
    FLOW_TWO FLOW_INLINE bool operator SYM(FLOW_A, FLOW_B) {                                                           \
        constexpr int DOWN = (W - I) - (W2 - I2);                                                                      \
        constexpr int WA = DOWN < 0 ? flow_ap::larger(W - DOWN + 1, 1) : W;                                            \
        constexpr int WB = DOWN > 0 ? flow_ap::larger(W2 + DOWN, 1) : W2;                                              \
        const auto x = ap_fixed_base<WA, I + (DOWN < 0), S, Q, O, N>(a).V;                                             \
        const auto y = ap_fixed_base<WB, I2, S2, Q2, O2, N2>(b).V;                                                     \
        typedef flow_ap::comparison<WA, S, WB, S2> is;                                                                 \
        typedef flow_ap::comparison<WB, S2, WA, S> is_other;                                                           \
        (void)sizeof(is), (void)sizeof(is_other);                                                                      \
        return EXPRESSION;                                                                                             \
    }                                                                                                                  \
    FLOW_FIXED> FLOW_INLINE bool operator SYM(FLOW_A, double b) { return a.to_double() SYM b; }                        \
    FLOW_FIXED> FLOW_INLINE bool operator SYM(double b, FLOW_A) { return b SYM a.to_double(); }                        \
    FLOW_WITH_INTEGERS(SYM)
FLOW_COMPARISON(==, is::equal(x, y))
FLOW_COMPARISON(!=, !is::equal(x, y))
FLOW_COMPARISON(<, is::less(x, y))
FLOW_COMPARISON(>, is_other::less(y, x))
FLOW_COMPARISON(<=, !is_other::less(y, x))
FLOW_COMPARISON(>=, !is::less(x, y))

FLOW_FIXED> std::ostream &operator<<(std::ostream &out, FLOW_A) { return out << a.to_double(); }

FLOW_FIXED> std::istream &operator>>(std::istream &in, ap_fixed_base<W, I, S, Q, O, N> &a) {
    double value;
    in >> value;
    a = ap_fixed_base<W, I, S, Q, O, N>(value);
    return in;
}

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct ap_fixed : ap_fixed_base<W, I, true, Q, O, N> {
    using ap_fixed_base<W, I, true, Q, O, N>::ap_fixed_base;
    ap_fixed() = default;
    FLOW_INLINE ap_fixed(const ap_fixed_base<W, I, true, Q, O, N> &x) : ap_fixed_base<W, I, true, Q, O, N>(x) {}
};

template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct ap_ufixed : ap_fixed_base<W, I, false, Q, O, N> {
    using ap_fixed_base<W, I, false, Q, O, N>::ap_fixed_base;
    ap_ufixed() = default;
    FLOW_INLINE ap_ufixed(const ap_fixed_base<W, I, false, Q, O, N> &x) : ap_fixed_base<W, I, false, Q, O, N>(x) {}
};

#undef FLOW_FIXED
#undef FLOW_A
#undef FLOW_B
#undef FLOW_TWO
#undef FLOW_RESULT
#undef FLOW_C_INT
#undef FLOW_WITH_INTEGERS
#undef FLOW_ASSIGN
#undef FLOW_ALIGNED
#undef FLOW_SHIFT
#undef FLOW_COMPARISON

#endif
