// Between a 32-bit AXI4-Stream and a network: unpack() turns words into values, pack() values into words.
//
// A value travels in a lane of 8, 16 or 32 bits, the smallest that holds it, sign- or zero-extended; a value
// wider than 32 bits takes two words, the lower half first. The first value of a word lies in its lowest bits.
// A frame starts in a word of its own, so its last word is padded with zeros; where a network has several inputs
// or outputs, each starts in a word of its own.
//
// The TLAST of a frame's last input word comes back on the frame's last output word, and no other word has one. A
// DMA ends a transfer at TLAST, so a host sends a batch of any number of frames in one transfer, with TLAST at its
// end, and receives all results in one. unpack() counts words: a TLAST elsewhere is ignored and shifts nothing.
//
// The flag passes the network in a stream beside it, one a frame. It is written when the frame's last word has been
// read and its values are on their way, and read when all of its results have been, for the last word of all. So
// neither side waits for a flag while the network waits for that side: pack() takes every result before it needs the
// flag, and what the network still reads of that frame comes from unpack() alone. Where the stream of flags is full,
// unpack() waits, but the network has all of the frames whose flags it holds, and pack() frees the oldest flag
// with them. More frames inside than flags can only cost clocks.
//
// Both gearboxes move a word or an array of values (whichever is smaller) in every clock cycle, through a
// chain of slots that shifts by fixed distances: a slot is a lane, or half of a value's two words.

#ifndef FLOW_AXIS_TOP_H_
#define FLOW_AXIS_TOP_H_

#include "ap_axi_sdata.h"
#include "ap_fixed.h"
#include "ap_int.h"
#include "hls_stream.h"
#include "nnet_utils/nnet_types.h"

static const int AXIS_BITS = 32;

typedef ap_axiu<AXIS_BITS, 0, 0, 0> axis_word_t;

namespace flow_axis {

typedef ap_uint<1> last_t; // the TLAST of a frame

constexpr unsigned ceil_div(unsigned a, unsigned b) { return (a + b - 1) / b; }
constexpr unsigned gcd(unsigned a, unsigned b) { return b == 0 ? a : gcd(b, a % b); }
constexpr unsigned largest(unsigned a, unsigned b) { return a > b ? a : b; }

// Width, sign and fraction bits of the types that hls4ml gives to values.
template <class T> struct type_of;
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct type_of<ap_fixed<W, I, Q, O, N>> {
    static const int WIDTH = W;
    static const bool SIGNED = true;
    static const int FRACTION_BITS = W - I;
};
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> struct type_of<ap_ufixed<W, I, Q, O, N>> {
    static const int WIDTH = W;
    static const bool SIGNED = false;
    static const int FRACTION_BITS = W - I;
};
template <int W> struct type_of<ap_int<W>> {
    static const int WIDTH = W;
    static const bool SIGNED = true;
    static const int FRACTION_BITS = 0;
};
template <int W> struct type_of<ap_uint<W>> {
    static const int WIDTH = W;
    static const bool SIGNED = false;
    static const int FRACTION_BITS = 0;
};

// How values of type T lie in words.
template <class T> struct layout {
    static const int WIDTH = type_of<T>::WIDTH;
    static_assert(WIDTH <= 2 * AXIS_BITS, "a value must fit into two AXI4-Stream words");
    static const int LANE_BITS = WIDTH <= 8 ? 8 : WIDTH <= 16 ? 16 : WIDTH <= AXIS_BITS ? AXIS_BITS : 2 * AXIS_BITS;
    static const int SLOT_BITS = LANE_BITS < AXIS_BITS ? LANE_BITS : AXIS_BITS;
    static const unsigned SLOTS_PER_VALUE = LANE_BITS / SLOT_BITS;
    static const unsigned SLOTS_PER_WORD = AXIS_BITS / SLOT_BITS;
    typedef ap_uint<SLOT_BITS> slot_t;
    typedef ap_uint<LANE_BITS> lane_t;

    static constexpr unsigned words(unsigned values) { return ceil_div(values * SLOTS_PER_VALUE, SLOTS_PER_WORD); }

    static T value(lane_t lane) {
        #pragma HLS INLINE
        T result;
        result.range(WIDTH - 1, 0) = lane.range(WIDTH - 1, 0);
        return result;
    }

    static lane_t lane(T value) {
        #pragma HLS INLINE
        lane_t result = 0;
        if (type_of<T>::SIGNED && value.range(WIDTH - 1, WIDTH - 1) == 1)
            result = ~result;
        result.range(WIDTH - 1, 0) = value.range(WIDTH - 1, 0);
        return result;
    }
};

// Shift a word in at the top of a chain of slots.
template <class T, unsigned DEPTH> void push_word(typename layout<T>::slot_t (&slots)[DEPTH], ap_uint<AXIS_BITS> word) {
    #pragma HLS INLINE
    typedef layout<T> L;
    for (unsigned i = 0; i + L::SLOTS_PER_WORD < DEPTH; i++) {
        #pragma HLS UNROLL
        slots[i] = slots[i + L::SLOTS_PER_WORD];
    }
    for (unsigned i = 0; i < L::SLOTS_PER_WORD; i++) {
        #pragma HLS UNROLL
        slots[DEPTH - L::SLOTS_PER_WORD + i] = word.range(L::SLOT_BITS * (i + 1) - 1, L::SLOT_BITS * i);
    }
}

// Shift a word out at the bottom of a chain of slots; zeros follow at the top.
template <class T, unsigned DEPTH> ap_uint<AXIS_BITS> pop_word(typename layout<T>::slot_t (&slots)[DEPTH]) {
    #pragma HLS INLINE
    typedef layout<T> L;
    ap_uint<AXIS_BITS> word = 0;
    for (unsigned i = 0; i < L::SLOTS_PER_WORD; i++) {
        #pragma HLS UNROLL
        word.range(L::SLOT_BITS * (i + 1) - 1, L::SLOT_BITS * i) = slots[i];
    }
    for (unsigned i = 0; i < DEPTH; i++) {
        #pragma HLS UNROLL
        slots[i] = i + L::SLOTS_PER_WORD < DEPTH ? slots[i + L::SLOTS_PER_WORD] : typename L::slot_t(0);
    }
    return word;
}

// Read the words of one frame of SIZE values and write them as arrays (ARRAY: nnet::array<T, N>); the last word's
// TLAST is returned.
template <unsigned SIZE, class ARRAY> last_t unpack(hls::stream<axis_word_t> &words, hls::stream<ARRAY> &values) {
    typedef typename ARRAY::value_type T;
    typedef layout<T> L;
    static_assert(SIZE % ARRAY::size == 0, "a frame must hold whole arrays");
    const unsigned ARRAYS = SIZE / ARRAY::size;
    const unsigned TAKEN = L::SLOTS_PER_VALUE * ARRAY::size; // slots of an array
    const unsigned STEPS = largest(L::words(SIZE), ARRAYS);
    const unsigned DEPTH = TAKEN + L::SLOTS_PER_WORD - 1; // a word is read only while an array lacks slots
    // Slots beyond an array when it is complete: FIRST_SPARE, or a few STRIDEs more. They are spelled out
    // below, because a variable index would cost a multiplexer over the whole chain.
    const unsigned FIRST_SPARE = ARRAYS == 1 ? L::words(SIZE) * L::SLOTS_PER_WORD - TAKEN : 0;
    const unsigned STRIDE = ARRAYS == 1 ? L::SLOTS_PER_WORD : gcd(TAKEN, L::SLOTS_PER_WORD);
    typename L::slot_t slots[DEPTH];
    #pragma HLS ARRAY_PARTITION variable=slots complete
    unsigned filled = 0; // slots at the top that wait for their array
    last_t last = 0;

    for (unsigned step = 0; step < STEPS; step++) {
        #pragma HLS PIPELINE II=1
        if (filled < TAKEN) {
            axis_word_t word = words.read();
            push_word<T>(slots, word.data);
            last = word.last;
            filled += L::SLOTS_PER_WORD;
        }
        if (filled >= TAKEN) {
            ARRAY array;
            for (unsigned i = 0; i < ARRAY::size; i++) {
                #pragma HLS UNROLL
                typename L::lane_t lane = 0;
                for (unsigned part = 0; part < L::SLOTS_PER_VALUE; part++) {
                    #pragma HLS UNROLL
                    const unsigned place = L::SLOTS_PER_WORD - 1 + i * L::SLOTS_PER_VALUE + part;
                    typename L::slot_t slot = slots[place - FIRST_SPARE];
                    for (unsigned spare = FIRST_SPARE + STRIDE; spare < L::SLOTS_PER_WORD; spare += STRIDE) {
                        #pragma HLS UNROLL
                        if (filled == TAKEN + spare)
                            slot = slots[place - spare];
                    }
                    lane.range(L::SLOT_BITS * (part + 1) - 1, L::SLOT_BITS * part) = slot;
                }
                array[i] = L::value(lane);
            }
            values.write(array);
            filled -= TAKEN;
        }
    }
    return last;
}

// Read the arrays of one frame of SIZE values and write them as words; LAST: nothing follows in this frame, so that
// its flag goes with the last word.
template <unsigned SIZE, bool LAST, class ARRAY>
void pack(hls::stream<ARRAY> &values, hls::stream<last_t> &lasts, hls::stream<axis_word_t> &words) {
    typedef typename ARRAY::value_type T;
    typedef layout<T> L;
    static_assert(SIZE % ARRAY::size == 0, "a frame must hold whole arrays");
    const unsigned ARRAYS = SIZE / ARRAY::size;
    const unsigned GIVEN = L::SLOTS_PER_VALUE * ARRAY::size; // slots of an array
    const unsigned WORDS = L::words(SIZE);
    // Arrays smaller than a word: one step an array, and one more if slots are left over after the last one.
    const unsigned STEPS = GIVEN >= L::SLOTS_PER_WORD
                               ? WORDS
                               : ARRAYS + WORDS - (ARRAYS - 1) * GIVEN / L::SLOTS_PER_WORD - 1;
    const unsigned DEPTH = GIVEN + L::SLOTS_PER_WORD - 1; // an array is read only while a word lacks slots
    const unsigned STRIDE = ARRAYS == 1 ? L::SLOTS_PER_WORD : gcd(GIVEN, L::SLOTS_PER_WORD);
    typename L::slot_t slots[DEPTH];
    #pragma HLS ARRAY_PARTITION variable=slots complete
    for (unsigned i = 0; i < DEPTH; i++) {
        #pragma HLS UNROLL
        slots[i] = 0;
    }
    unsigned filled = 0; // slots at the bottom that wait for their word
    unsigned taken = 0;  // arrays read
    unsigned sent = 0;   // words written

    for (unsigned step = 0; step < STEPS; step++) {
        #pragma HLS PIPELINE II=1
        if (filled < L::SLOTS_PER_WORD && taken < ARRAYS) {
            ARRAY array = values.read();
            for (unsigned i = 0; i < ARRAY::size; i++) {
                #pragma HLS UNROLL
                typename L::lane_t lane = L::lane(array[i]);
                for (unsigned part = 0; part < L::SLOTS_PER_VALUE; part++) {
                    #pragma HLS UNROLL
                    for (unsigned start = 0; start < L::SLOTS_PER_WORD; start += STRIDE) {
                        #pragma HLS UNROLL
                        if (STRIDE == L::SLOTS_PER_WORD || filled == start)
                            slots[start + i * L::SLOTS_PER_VALUE + part] =
                                lane.range(L::SLOT_BITS * (part + 1) - 1, L::SLOT_BITS * part);
                    }
                }
            }
            filled += GIVEN;
            taken++;
        }
        if (filled >= L::SLOTS_PER_WORD || taken == ARRAYS) {
            sent++;
            axis_word_t word;
            word.data = pop_word<T>(slots);
            word.keep = -1;
            word.strb = -1;
            word.last = 0;
            if (LAST && sent == WORDS) // no sooner: the network may give results before it has the whole frame
                word.last = lasts.read();
            words.write(word);
            filled = filled > L::SLOTS_PER_WORD ? filled - L::SLOTS_PER_WORD : 0;
        }
    }
}

// For a network that takes a whole frame as an array (io_parallel): a frame travels through the dataflow
// region as one element of a stream, which is written once and read once.
template <unsigned SIZE, class T> void load(hls::stream<nnet::array<T, SIZE>> &frames, T (&values)[SIZE]) {
    #pragma HLS INLINE
    nnet::array<T, SIZE> frame = frames.read();
    for (unsigned i = 0; i < SIZE; i++) {
        #pragma HLS UNROLL
        values[i] = frame[i];
    }
}

template <unsigned SIZE, class T> void store(T (&values)[SIZE], hls::stream<nnet::array<T, SIZE>> &frames) {
    #pragma HLS INLINE
    nnet::array<T, SIZE> frame;
    for (unsigned i = 0; i < SIZE; i++) {
        #pragma HLS UNROLL
        frame[i] = values[i];
    }
    frames.write(frame);
}

} // namespace flow_axis

#endif
