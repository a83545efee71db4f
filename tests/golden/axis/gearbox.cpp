// Every shape: unpack() and pack() against packing that is spelled out on bits. The test puts the calls in.
//
// All frames wait in the stream before the first call. TLAST is high on words at random, inside a frame too.

#include "axis_top.h"

#include <cstdio>
#include <type_traits>
#include <vector>

static const int FRAMES = 4;

static unsigned state = 1;

static unsigned random_bits() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <int W, bool SIGNED, unsigned N, unsigned ARRAYS, bool LAST> struct shape {
    typedef typename std::conditional<SIGNED, ap_fixed<W, W / 2>, ap_ufixed<W, W / 2>>::type T;
    typedef nnet::array<T, N> array_t;
    static const unsigned SIZE = N * ARRAYS;
    static const unsigned LANE = W <= 8 ? 8 : W <= 16 ? 16 : W <= 32 ? 32 : 64;
    static const unsigned WORDS = (SIZE * LANE + 31) / 32;

    std::vector<bool> bits; // of all frames, one behind the other
    std::vector<T> expected;
    std::vector<bool> lasts;

    int failed(const char *what) {
        return std::printf("width %d%s, %u arrays of %u: %s\n", W, SIGNED ? "" : " unsigned", ARRAYS, N, what);
    }

    void draw(hls::stream<axis_word_t> &in) {
        for (int frame = 0; frame < FRAMES; frame++) {
            std::vector<bool> fresh(WORDS * 32, false);
            for (unsigned i = 0; i < SIZE; i++) {
                ap_uint<W> raw;
                for (int b = 0; b < W; b++)
                    raw[b] = random_bits() & 1;
                for (unsigned b = 0; b < LANE; b++)
                    fresh[i * LANE + b] = b < W ? bool(raw[b]) : SIGNED && raw[W - 1];
                T value;
                value.range(W - 1, 0) = raw.range(W - 1, 0);
                expected.push_back(value);
            }
            for (unsigned i = 0; i < WORDS; i++) {
                axis_word_t word;
                for (int b = 0; b < 32; b++)
                    word.data[b] = bool(fresh[i * 32 + b]);
                word.last = random_bits() & 1;
                in.write(word);
                if (i + 1 == WORDS)
                    lasts.push_back(word.last == 1);
            }
            bits.insert(bits.end(), fresh.begin(), fresh.end());
        }
    }

    int check() {
        hls::stream<axis_word_t> in("in"), out("out");
        hls::stream<array_t> values("values"), copies("copies");
        hls::stream<flow_axis::last_t> flags("flags");
        draw(in);
        for (int frame = 0; frame < FRAMES; frame++) {
            flags.write(flow_axis::unpack<SIZE>(in, values));
            if (in.size() != (FRAMES - 1 - frame) * WORDS || values.size() != (frame + 1) * ARRAYS)
                return failed("unpack takes or gives the wrong number");
        }
        for (unsigned i = 0; i < FRAMES * ARRAYS; i++) {
            array_t array = values.read();
            for (unsigned j = 0; j < N; j++)
                if (array[j] != expected[i * N + j])
                    return failed("unpack gives a wrong value");
            copies.write(array);
        }
        for (int frame = 0; frame < FRAMES; frame++) {
            flow_axis::pack<SIZE, LAST>(copies, flags, out);
            if (out.size() != (frame + 1) * WORDS || flags.size() != size_t(LAST ? FRAMES - 1 - frame : FRAMES))
                return failed("pack takes or gives the wrong number");
        }
        for (unsigned i = 0; i < FRAMES * WORDS; i++) {
            axis_word_t word = out.read();
            for (int b = 0; b < 32; b++)
                if (word.data[b] != bits[i * 32 + b])
                    return failed("pack gives a wrong bit");
            const bool last = LAST && i % WORDS == WORDS - 1 && lasts[i / WORDS];
            if ((word.last == 1) != last || word.keep != 15 || word.strb != 15)
                return failed("pack gives wrong framing");
        }
        return 0;
    }
};

int main() {
    int failed = 0;
    // checks
    return failed != 0;
}
