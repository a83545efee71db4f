// ap_int and ap_uint for emulation with g++; see ap_numbers.h.

#ifndef FLOW_EMULATION_AP_INT_H_
#define FLOW_EMULATION_AP_INT_H_

#include "ap_numbers.h"

// Bits Hi to Lo of a number, to be read (Hi < Lo: reversed) or written.
template <class NUMBER> struct ap_range_ref {
    NUMBER &number;
    int high, low;

    typedef ap_int_base<NUMBER::width, false> value_t;
    typedef flow_ap::uwide<NUMBER::width> bits_t;

    FLOW_INLINE ap_range_ref(NUMBER &source, int hi, int lo) : number(source), high(hi), low(lo) {}
    ap_range_ref(const ap_range_ref &) = default;

    int length() const { return (high >= low ? high - low : low - high) + 1; }
    static FLOW_INLINE bits_t mask(int bits) {
        return bits >= int(8 * sizeof(bits_t)) ? ~bits_t(0) : (bits_t(1) << bits) - 1;
    }
    static bits_t reversed(bits_t bits, int count) {
        bits_t result = 0;
        for (int i = 0; i < count; i++)
            result |= (bits >> i & 1) << (count - 1 - i);
        return result;
    }
    FLOW_INLINE value_t get() const {
        value_t result;
        const bits_t all = bits_t(number.V);
        if (high >= low)
            result.V = flow_ap::raw<NUMBER::width, false>(all >> low & mask(high - low + 1));
        else
            result.V = flow_ap::raw<NUMBER::width, false>(reversed(all >> high & mask(low - high + 1), low - high + 1));
        return result;
    }
    FLOW_INLINE void set(bits_t bits) {
        const int first = high >= low ? low : high, count = length();
        if (high < low)
            bits = reversed(bits, count);
        const bits_t kept = bits_t(number.V) & ~(mask(count) << first);
        number.V = flow_ap::wrap<NUMBER::width, NUMBER::is_signed>(kept | (bits & mask(count)) << first);
    }
    template <class T> FLOW_INLINE ap_range_ref &operator=(const T &value) {
        if constexpr (std::is_arithmetic<T>::value || std::is_enum<T>::value)
            set(bits_t((long long)value));
        else
            set(bits_t(ap_int_base<flow_ap::smaller(NUMBER::width, 127), false>(value).V));
        return *this;
    }
    FLOW_INLINE ap_range_ref &operator=(const ap_range_ref &other) {
        set(bits_t(other.get().V));
        return *this;
    }
    FLOW_INLINE operator unsigned long long() const { return (unsigned long long)get().V; }
    int to_int() const { return int(get().V); }
    unsigned to_uint() const { return unsigned(get().V); }
    long to_long() const { return long(get().V); }
    unsigned long to_ulong() const { return (unsigned long)get().V; }
    long long to_int64() const { return (long long)get().V; }
    unsigned long long to_uint64() const { return (unsigned long long)get().V; }
};

// One bit of a number.
template <class NUMBER> struct ap_bit_ref {
    NUMBER &number;
    int index;

    typedef ap_int_base<(NUMBER::width > 0), false> value_t;

    FLOW_INLINE ap_bit_ref(NUMBER &source, int i) : number(source), index(i) {}
    ap_bit_ref(const ap_bit_ref &) = default;
    FLOW_INLINE bool to_bool() const { return flow_ap::uwide<NUMBER::width>(number.V) >> index & 1; }
    FLOW_INLINE operator bool() const { return to_bool(); }
    FLOW_INLINE value_t get() const { return value_t(to_bool()); }
    FLOW_INLINE ap_bit_ref &operator=(bool value) {
        ap_range_ref<NUMBER>(number, index, index).set(value);
        return *this;
    }
    FLOW_INLINE ap_bit_ref &operator=(const ap_bit_ref &other) { return *this = other.to_bool(); }
    bool operator~() const { return !to_bool(); }
    int length() const { return 1; }
};

// Access to the bits of a number, the same for integers and fixed point.
template <class NUMBER> struct ap_bits {
    typedef ap_range_ref<NUMBER> range_t;
    typedef ap_bit_ref<NUMBER> bit_t;

    FLOW_INLINE NUMBER &self() const { return const_cast<NUMBER &>(static_cast<const NUMBER &>(*this)); }
    FLOW_INLINE range_t range(int hi, int lo) const { return range_t(self(), hi, lo); }
    FLOW_INLINE range_t range() const { return range_t(self(), NUMBER::width - 1, 0); }
    FLOW_INLINE range_t operator()(int hi, int lo) const { return range_t(self(), hi, lo); }
    FLOW_INLINE bit_t operator[](int i) { return bit_t(self(), i); }
    FLOW_INLINE bit_t bit(int i) { return bit_t(self(), i); }
    FLOW_INLINE bool operator[](int i) const { return bit_t(self(), i); }
    FLOW_INLINE bool bit(int i) const { return bit_t(self(), i); }
    int length() const { return NUMBER::width; }
};

template <int W, bool S> struct ap_int_base : ap_bits<ap_int_base<W, S>> {
    static const int width = W;
    static const bool is_signed = S;
    typedef typename std::conditional<S, long long, unsigned long long>::type c_long;

    flow_ap::raw<W, S> V;

    // The types of results with another operand.
    template <int W2, bool S2> struct RType {
        static constexpr int COMMON = flow_ap::larger(W + (S2 && !S), W2 + (S && !S2));
        template <int BITS, bool SIGN>
        using number = typename std::conditional<SIGN, ap_int<BITS>, ap_uint<BITS>>::type;
        typedef number<W + W2, S || S2> mult;
        typedef number<COMMON + 1, S || S2> plus;
        typedef number<COMMON + 1, true> minus;
        typedef number<W + S2, S || S2> div;
        typedef number<flow_ap::smaller(W, W2 + (!S2 && S)), S> mod;
        typedef number<COMMON, S || S2> logic;
    };
    typedef typename std::conditional<S, ap_int<W>, ap_uint<W>>::type arg1;

    ap_int_base() = default;
    template <int W2, bool S2> FLOW_INLINE ap_int_base(const ap_int_base<W2, S2> &x) : V(flow_ap::wrap<W, S>(x.V)) {}
    template <int W2, int I2, bool S2, ap_q_mode Q2, ap_o_mode O2, int N2>
    FLOW_INLINE ap_int_base(const ap_fixed_base<W2, I2, S2, Q2, O2, N2> &x)
        : V(flow_ap::wrap<W, S>(x.to_ap_int_base().V)) {}
    template <class X> FLOW_INLINE ap_int_base(const ap_range_ref<X> &x) : V(flow_ap::wrap<W, S>(x.get().V)) {}
    template <class X> FLOW_INLINE ap_int_base(const ap_bit_ref<X> &x) : V(flow_ap::wrap<W, S>(x.to_bool())) {}
    template <class T, flow_ap::if_integral<T> = 0> FLOW_INLINE ap_int_base(T x) : V(flow_ap::wrap<W, S>(x)) {}
    ap_int_base(double x) : V(from_double(x)) {}
    ap_int_base(float x) : V(from_double(x)) {}

    // The vendor's headers cut off and then negate, and make 1 of what lies between -1/2 and 0.
    static flow_ap::raw<W, S> from_double(double x) {
        const flow_ap::parts in = flow_ap::split(x < 0 ? -x : x);
        typedef flow_ap::uwide<flow_ap::larger(W, 64)> U;
        U whole;
        if (in.exponent <= 0)
            whole = -in.exponent < 54 ? U(in.mantissa) >> -in.exponent : U(x < 0 ? -1 : 0);
        else
            whole = in.exponent < W ? U(in.mantissa) << in.exponent : U(0);
        return flow_ap::wrap<W, S>(x < 0 ? -whole : whole);
    }

    FLOW_INLINE operator c_long() const { return c_long(V); }
    bool to_bool() const { return V != 0; }
    char to_char() const { return char(V); }
    signed char to_schar() const { return (signed char)V; }
    unsigned char to_uchar() const { return (unsigned char)V; }
    short to_short() const { return short(V); }
    unsigned short to_ushort() const { return (unsigned short)V; }
    FLOW_INLINE int to_int() const { return int(V); }
    FLOW_INLINE unsigned to_uint() const { return unsigned(V); }
    long to_long() const { return long(V); }
    unsigned long to_ulong() const { return (unsigned long)V; }
    FLOW_INLINE long long to_int64() const { return (long long)V; }
    FLOW_INLINE unsigned long long to_uint64() const { return (unsigned long long)V; }
    float to_float() const { return float(V); }
    double to_double() const { return double(V); }

    bool iszero() const { return V == 0; }
    bool is_zero() const { return V == 0; }
    bool sign() const { return V < 0; }
    bool test(int i) const { return (*this)[i]; }
    bool get_bit(int i) const { return (*this)[i]; }
    void set_bit(int i, bool x) { (*this)[i] = x; }
    void set(int i, bool x = true) { (*this)[i] = x; }
    void clear(int i) { (*this)[i] = false; }
    void invert(int i) { (*this)[i] = !test(i); }
    bool or_reduce() const { return V != 0; }
    bool nor_reduce() const { return V == 0; }
    bool and_reduce() const { return flow_ap::wrap<W, true>(V) == -1; }
    bool nand_reduce() const { return !and_reduce(); }
    bool xor_reduce() const {
        return __builtin_parityll((unsigned long long)bits()) ^ __builtin_parityll((unsigned long long)(bits() >> 64));
    }
    bool xnor_reduce() const { return !xor_reduce(); }
    flow_ap::uint128 bits() const { return flow_ap::uint128(flow_ap::uwide<W>(V) & ap_range_ref<ap_int_base>::mask(W)); }

    FLOW_INLINE bool operator!() const { return V == 0; }
    FLOW_INLINE arg1 operator+() const { return *this; }
    FLOW_INLINE typename RType<1, false>::minus operator-() const { return ap_int_base<1, false>(0) - *this; }
    FLOW_INLINE arg1 operator~() const { return made<arg1>(flow_ap::wrap<W, S>(~V)); }

    FLOW_INLINE ap_int_base &operator++() { return *this += ap_int_base<1, false>(1); }
    FLOW_INLINE ap_int_base &operator--() { return *this -= ap_int_base<1, false>(1); }
    FLOW_INLINE const arg1 operator++(int) {
        const arg1 old = *this;
        ++*this;
        return old;
    }
    FLOW_INLINE const arg1 operator--(int) {
        const arg1 old = *this;
        --*this;
        return old;
    }

    template <class T> static FLOW_INLINE T made(flow_ap::raw<T::width, T::is_signed> value) {
        T result;
        result.V = value;
        return result;
    }
};

#define FLOW_ASSIGN(SYM)                                                                                               \
    template <int W, bool S, int W2, bool S2>                                                                          \
    FLOW_INLINE ap_int_base<W, S> &operator SYM##=(ap_int_base<W, S> &a, const ap_int_base<W2, S2> &b) {               \
        return a = ap_int_base<W, S>(a SYM b);                                                                         \
    }                                                                                                                  \
    template <int W, bool S, class T, flow_ap::if_integral<T> = 0>                                                     \
    FLOW_INLINE ap_int_base<W, S> &operator SYM##=(ap_int_base<W, S> &a, T b) {                                        \
        return a = ap_int_base<W, S>(a SYM b);                                                                         \
    }                                                                                                                  \
    template <int W, bool S, class X>                                                                                  \
    FLOW_INLINE ap_int_base<W, S> &operator SYM##=(ap_int_base<W, S> &a, const ap_range_ref<X> &b) {                   \
        return a = ap_int_base<W, S>(a SYM b.get());                                                                   \
    }

// OP: how the common type C calculates with the operands.
#define FLOW_INT_OPERATOR(SYM, RESULT, BITS)                                                                           \
    template <int W, bool S, int W2, bool S2>                                                                          \
    FLOW_INLINE typename ap_int_base<W, S>::template RType<W2, S2>::RESULT operator SYM(                               \
        const ap_int_base<W, S> &a, const ap_int_base<W2, S2> &b) {                                                    \
        typedef typename ap_int_base<W, S>::template RType<W2, S2>::RESULT R;                                          \
        typedef flow_ap::wide<BITS> M;                                                                                 \
        return ap_int_base<W, S>::template made<R>(flow_ap::wrap<R::width, R::is_signed>(M(a.V) SYM M(b.V)));          \
    }                                                                                                                  \
    FLOW_WITH_C_INTEGERS(SYM)                                                                                          \
    FLOW_ASSIGN(SYM)

#define FLOW_WITH_C_INTEGERS(SYM)                                                                                      \
    template <int W, bool S, class T, flow_ap::if_integral<T> = 0>                                                     \
    FLOW_INLINE auto operator SYM(const ap_int_base<W, S> &a, T b) {                                                   \
        return a SYM ap_int_base<flow_ap::c_type<T>::WIDTH, flow_ap::c_type<T>::SIGNED>(b);                            \
    }                                                                                                                  \
    template <int W, bool S, class T, flow_ap::if_integral<T> = 0>                                                     \
    FLOW_INLINE auto operator SYM(T a, const ap_int_base<W, S> &b) {                                                   \
        return ap_int_base<flow_ap::c_type<T>::WIDTH, flow_ap::c_type<T>::SIGNED>(a) SYM b;                            \
    }                                                                                                                  \
    FLOW_WITH_REFERENCES(SYM, ap_range_ref)                                                                            \
    FLOW_WITH_REFERENCES(SYM, ap_bit_ref)

// Quotient and remainder have the type that they had if the number were on the left of the C integer.
#define FLOW_DIVIDE_C_INTEGERS(SYM, RESULT)                                                                            \
    template <int W, bool S, class T, flow_ap::if_integral<T> = 0>                                                     \
    FLOW_INLINE auto operator SYM(const ap_int_base<W, S> &a, T b) {                                                   \
        return a SYM ap_int_base<flow_ap::c_type<T>::WIDTH, flow_ap::c_type<T>::SIGNED>(b);                            \
    }                                                                                                                  \
    template <int W, bool S, class T, flow_ap::if_integral<T> = 0>                                                     \
    FLOW_INLINE auto operator SYM(T a, const ap_int_base<W, S> &b) {                                                   \
        typedef flow_ap::c_type<T> C;                                                                                  \
        return typename ap_int_base<W, S>::template RType<C::WIDTH, C::SIGNED>::RESULT(                                \
            ap_int_base<C::WIDTH, C::SIGNED>(a) SYM b);                                                                \
    }                                                                                                                  \
    FLOW_WITH_REFERENCES(SYM, ap_range_ref)                                                                            \
    FLOW_WITH_REFERENCES(SYM, ap_bit_ref)

#define FLOW_WITH_REFERENCES(SYM, REF)                                                                                 \
    template <int W, bool S, class X> FLOW_INLINE auto operator SYM(const ap_int_base<W, S> &a, const REF<X> &b) {     \
        return a SYM b.get();                                                                                          \
    }                                                                                                                  \
    template <int W, bool S, class X> FLOW_INLINE auto operator SYM(const REF<X> &a, const ap_int_base<W, S> &b) {     \
        return a.get() SYM b;                                                                                          \
    }                                                                                                                  \
    template <class X, class T, flow_ap::if_integral<T> = 0> FLOW_INLINE auto operator SYM(const REF<X> &a, T b) {     \
        return a.get() SYM b;                                                                                          \
    }                                                                                                                  \
    template <class X, class T, flow_ap::if_integral<T> = 0> FLOW_INLINE auto operator SYM(T a, const REF<X> &b) {     \
        return a SYM b.get();                                                                                          \
    }                                                                                                                  \
    template <class X, class Y> FLOW_INLINE auto operator SYM(const REF<X> &a, const REF<Y> &b) {                      \
        return a.get() SYM b.get();                                                                                    \
    }

FLOW_INT_OPERATOR(+, plus, R::width + !R::is_signed)
FLOW_INT_OPERATOR(-, minus, R::width)
FLOW_INT_OPERATOR(*, mult, flow_ap::smaller(R::width + !R::is_signed, 128))
FLOW_INT_OPERATOR(&, logic, R::width + !R::is_signed)
FLOW_INT_OPERATOR(|, logic, R::width + !R::is_signed)
FLOW_INT_OPERATOR(^, logic, R::width + !R::is_signed)

// The vendor's headers divide in a common type, which has the sign of the wider operand: a negative number counts as a
// huge one beside a wider unsigned one.
template <int W, bool S, int W2, bool S2> struct ap_division {
    static constexpr int BITS = flow_ap::larger(W, W2) + (S || S2);
    static constexpr bool SIGNED = W > W2 ? S : W2 > W ? S2 : S || S2;
    typedef flow_ap::wide<flow_ap::span(BITS, SIGNED)> M;

    static FLOW_INLINE M quotient(flow_ap::raw<W, S> a, flow_ap::raw<W2, S2> b) {
        return M(flow_ap::wrap<BITS, SIGNED>(a)) / M(flow_ap::wrap<BITS, SIGNED>(b));
    }
    static FLOW_INLINE M remainder(flow_ap::raw<W, S> a, flow_ap::raw<W2, S2> b) {
        if (!S && S2 && b < 0)
            return M(a);
        return M(flow_ap::wrap<BITS, SIGNED>(a)) % M(flow_ap::wrap<BITS, SIGNED>(b));
    }
};

#define FLOW_DIVISION(SYM, RESULT, FUNCTION)                                                                           \
    template <int W, bool S, int W2, bool S2>                                                                          \
    FLOW_INLINE typename ap_int_base<W, S>::template RType<W2, S2>::RESULT operator SYM(                               \
        const ap_int_base<W, S> &a, const ap_int_base<W2, S2> &b) {                                                    \
        typedef typename ap_int_base<W, S>::template RType<W2, S2>::RESULT R;                                          \
        return ap_int_base<W, S>::template made<R>(                                                                    \
            flow_ap::wrap<R::width, R::is_signed>(ap_division<W, S, W2, S2>::FUNCTION(a.V, b.V)));                     \
    }                                                                                                                  \
    FLOW_DIVIDE_C_INTEGERS(SYM, RESULT)                                                                                \
    FLOW_ASSIGN(SYM)
FLOW_DIVISION(/, div, quotient)
FLOW_DIVISION(%, mod, remainder)

// Shifts keep the type of their left operand.
#define FLOW_INT_SHIFT(SYM, MINUS)                                                                                     \
    template <int W, bool S, int W2, bool S2>                                                                          \
    FLOW_INLINE typename ap_int_base<W, S>::arg1 operator SYM(const ap_int_base<W, S> &a,                              \
                                                              const ap_int_base<W2, S2> &b) {                          \
        return ap_int_base<W, S>::template made<typename ap_int_base<W, S>::arg1>(                                     \
            flow_ap::shift_left<W, S>(a.V, MINUS int64_t(b.V)));                                                       \
    }                                                                                                                  \
    template <int W, bool S, class T, flow_ap::if_integral<T> = 0>                                                     \
    FLOW_INLINE typename ap_int_base<W, S>::arg1 operator SYM(const ap_int_base<W, S> &a, T b) {                       \
        return ap_int_base<W, S>::template made<typename ap_int_base<W, S>::arg1>(                                     \
            flow_ap::shift_left<W, S>(a.V, MINUS int64_t(b)));                                                         \
    }                                                                                                                  \
    FLOW_ASSIGN(SYM)
FLOW_INT_SHIFT(<<, +)
FLOW_INT_SHIFT(>>, -)

#define FLOW_INT_COMPARISON(SYM, EXPRESSION)                                                                           \
    template <int W, bool S, int W2, bool S2>                                                                          \
    FLOW_INLINE bool operator SYM(const ap_int_base<W, S> &a, const ap_int_base<W2, S2> &b) {                          \
        typedef flow_ap::comparison<W, S, W2, S2> is;                                                                  \
        typedef flow_ap::comparison<W2, S2, W, S> is_other;                                                            \
        (void)sizeof(is), (void)sizeof(is_other);                                                                      \
        return EXPRESSION;                                                                                             \
    }                                                                                                                  \
    template <int W, bool S> FLOW_INLINE bool operator SYM(const ap_int_base<W, S> &a, double b) {                     \
        return a.to_double() SYM b;                                                                                    \
    }                                                                                                                  \
    template <int W, bool S> FLOW_INLINE bool operator SYM(double a, const ap_int_base<W, S> &b) {                     \
        return a SYM b.to_double();                                                                                    \
    }                                                                                                                  \
    FLOW_WITH_C_INTEGERS(SYM)
FLOW_INT_COMPARISON(==, is::equal(a.V, b.V))
FLOW_INT_COMPARISON(!=, !is::equal(a.V, b.V))
FLOW_INT_COMPARISON(<, is::less(a.V, b.V))
FLOW_INT_COMPARISON(>, is_other::less(b.V, a.V))
FLOW_INT_COMPARISON(<=, !is_other::less(b.V, a.V))
FLOW_INT_COMPARISON(>=, !is::less(a.V, b.V))

#define FLOW_WITH_DOUBLE(SYM)                                                                                          \
    template <int W, bool S, class T, typename std::enable_if<std::is_floating_point<T>::value, int>::type = 0>        \
    FLOW_INLINE T operator SYM(const ap_int_base<W, S> &a, T b) {                                                      \
        return typename ap_int_base<W, S>::c_long(a) SYM b;                                                            \
    }                                                                                                                  \
    template <int W, bool S, class T, typename std::enable_if<std::is_floating_point<T>::value, int>::type = 0>        \
    FLOW_INLINE T operator SYM(T a, const ap_int_base<W, S> &b) {                                                      \
        return a SYM typename ap_int_base<W, S>::c_long(b);                                                            \
    }
FLOW_WITH_DOUBLE(+)
FLOW_WITH_DOUBLE(-)
FLOW_WITH_DOUBLE(*)
FLOW_WITH_DOUBLE(/)

template <int W, bool S> std::ostream &operator<<(std::ostream &out, const ap_int_base<W, S> &x) {
    static_assert(W <= 64, "flow-emulation: numbers to print must have at most 64 bits");
    return out << typename ap_int_base<W, S>::c_long(x);
}

template <int W, bool S> std::istream &operator>>(std::istream &in, ap_int_base<W, S> &x) {
    long long value;
    in >> value;
    x = ap_int_base<W, S>(value);
    return in;
}

template <int W> struct ap_int : ap_int_base<W, true> {
    using ap_int_base<W, true>::ap_int_base;
    ap_int() = default;
    FLOW_INLINE ap_int(const ap_int_base<W, true> &x) : ap_int_base<W, true>(x) {}
};

template <int W> struct ap_uint : ap_int_base<W, false> {
    using ap_int_base<W, false>::ap_int_base;
    ap_uint() = default;
    FLOW_INLINE ap_uint(const ap_int_base<W, false> &x) : ap_int_base<W, false>(x) {}
};

#undef FLOW_INT_OPERATOR
#undef FLOW_INT_SHIFT
#undef FLOW_DIVISION
#undef FLOW_DIVIDE_C_INTEGERS
#undef FLOW_INT_COMPARISON
#undef FLOW_WITH_DOUBLE
#undef FLOW_WITH_C_INTEGERS
#undef FLOW_WITH_REFERENCES
#undef FLOW_ASSIGN

#include "ap_fixed.h"

#endif
