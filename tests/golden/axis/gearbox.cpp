// Every shape: unpack() and pack() against packing that is spelled out on bits. The test puts the calls in.

#include "axis_top.h"

#include <cstdio>
#include <vector>

static unsigned state = 1;

static unsigned random_bits() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <int W, unsigned N, unsigned ARRAYS, bool LAST> int check() {
    typedef ap_fixed<W, W / 2> T;
    const unsigned SIZE = N * ARRAYS;
    const unsigned lane = W <= 8 ? 8 : W <= 16 ? 16 : W <= 32 ? 32 : 64;
    const unsigned words = (SIZE * lane + 31) / 32;
    hls::stream<axis_word_t> in("in"), out("out");
    hls::stream<nnet::array<T, N>> values("values");
    for (int frame = 0; frame < 3; frame++) {
        std::vector<bool> bits(words * 32, false);
        std::vector<T> expected(SIZE);
        for (unsigned i = 0; i < SIZE; i++) {
            ap_int<W> raw;
            for (int b = 0; b < W; b++)
                raw[b] = random_bits() & 1;
            for (unsigned b = 0; b < lane; b++)
                bits[i * lane + b] = raw[b < W ? b : W - 1];
            expected[i].range(W - 1, 0) = raw.range(W - 1, 0);
        }
        for (unsigned i = 0; i < words; i++) {
            axis_word_t word;
            for (int b = 0; b < 32; b++)
                word.data[b] = bool(bits[i * 32 + b]);
            word.last = 0;
            in.write(word);
        }
        flow_axis::unpack<SIZE>(in, values);
        if (!in.empty() || values.size() != ARRAYS)
            return std::printf("width %d array %u of %u: unpack takes or gives the wrong number\n", W, N, ARRAYS);
        for (unsigned i = 0; i < ARRAYS; i++) {
            nnet::array<T, N> array = values.read();
            for (unsigned j = 0; j < N; j++)
                if (array[j] != expected[i * N + j])
                    return std::printf("width %d array %u of %u: unpack gives a wrong value\n", W, N, ARRAYS);
            values.write(array);
        }
        flow_axis::pack<SIZE, LAST>(values, out);
        if (!values.empty() || out.size() != words)
            return std::printf("width %d array %u of %u: pack takes or gives the wrong number\n", W, N, ARRAYS);
        for (unsigned i = 0; i < words; i++) {
            axis_word_t word = out.read();
            for (int b = 0; b < 32; b++)
                if (word.data[b] != bits[i * 32 + b])
                    return std::printf("width %d array %u of %u: pack gives a wrong bit\n", W, N, ARRAYS);
            if ((word.last == 1) != (LAST && i + 1 == words) || word.keep != 15)
                return std::printf("width %d array %u of %u: pack gives wrong framing\n", W, N, ARRAYS);
        }
    }
    return 0;
}

int main() {
    int failed = 0;
    // checks
    return failed != 0;
}
