// Frames through AXI4-Stream tops, many in one go.
//
//   calls TOP FRAMES              all words wait in the stream before the top is called, FRAMES times
//   stalls TOP FRAMES SEED HOLD   (compiled with STALLS) every process in a thread, FIFOs as deep as their pragmas say;
//                                 both sides pause at random, and the first result is taken after HOLD words went in
//
// Reads TOP.in and writes TOP.out: 64 bits a word, TLAST in bit 32, TKEEP above it. Exit status: 0, 2 wrong use,
// 3 words are left over, 9 deadlock (hls_stream.h).

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>
#ifdef STALLS
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#endif

#include "hls_stream.h"

static unsigned frames; // what each process of a top handles in one call

#include "tops.h"

static const unsigned S_AXIS_DEPTH = 4, M_AXIS_DEPTH = 2;

static axis_word_t word_of(uint64_t bits) {
    axis_word_t word;
    word.data = uint32_t(bits);
    word.last = bits >> 32 & 1;
    word.keep = -1;
    word.strb = -1;
    return word;
}

static uint64_t bits_of(const axis_word_t &word) {
    return word.data.to_uint64() | word.last.to_uint64() << 32 | word.keep.to_uint64() << 33;
}

#ifdef STALLS
struct pauses {
    std::minstd_rand random;
    explicit pauses(unsigned seed) : random(seed) {}
    // Bursts and gaps: now one side is faster, now the other.
    void maybe() {
        if (random() % 8 == 0)
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
    }
};

static std::vector<uint64_t> run(top_t top, const std::vector<uint64_t> &given, size_t wanted, unsigned seed,
                                 size_t hold) {
    hls::stream<axis_word_t> s_axis("s_axis", S_AXIS_DEPTH), m_axis("m_axis", M_AXIS_DEPTH);
    std::atomic<size_t> entered(0);
    std::vector<uint64_t> made;
    std::thread producer([&] {
        pauses some(seed);
        for (uint64_t bits : given) {
            some.maybe();
            s_axis.write(word_of(bits));
            entered++;
        }
    });
    std::thread consumer([&] {
        pauses some(seed + 1);
        while (entered < hold)
            std::this_thread::yield();
        if (hold) { // long enough for one more to slip in where there is room
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            std::printf("%zu words went in\n", size_t(entered));
        }
        while (made.size() < wanted) {
            some.maybe();
            made.push_back(bits_of(m_axis.read()));
        }
    });
    top(s_axis, m_axis);
    producer.join();
    consumer.join();
    if (!s_axis.empty() || !m_axis.empty())
        std::exit(3);
    return made;
}
#else
static std::vector<uint64_t> run(top_t top, const std::vector<uint64_t> &given) {
    hls::stream<axis_word_t> s_axis("s_axis"), m_axis("m_axis");
    for (uint64_t bits : given)
        s_axis.write(word_of(bits));
    for (unsigned frame = 0; frame < frames; frame++)
        top(s_axis, m_axis);
    if (!s_axis.empty())
        std::exit(3);
    std::vector<uint64_t> made;
    while (!m_axis.empty())
        made.push_back(bits_of(m_axis.read()));
    return made;
}
#endif

int main(int argc, char **argv) {
    const flow_top *found = nullptr;
    for (const flow_top &one : TOPS)
        if (argc > 2 && !std::strcmp(one.name, argv[1]))
            found = &one;
    if (!found)
        return 2;
    frames = std::strtoul(argv[2], nullptr, 10);
    const std::string name = found->name;
    std::ifstream file(name + ".in", std::ios::binary);
    std::vector<uint64_t> given;
    for (uint64_t bits; file.read(reinterpret_cast<char *>(&bits), sizeof bits);)
        given.push_back(bits);
#ifdef STALLS
    const size_t hold = std::strtoul(argv[4], nullptr, 10);
    const std::vector<uint64_t> made =
        run(found->top, given, frames * found->words_out, std::strtoul(argv[3], nullptr, 10), hold);
#else
    const std::vector<uint64_t> made = run(found->top, given);
#endif
    std::ofstream out(name + ".out", std::ios::binary);
    out.write(reinterpret_cast<const char *>(made.data()), made.size() * sizeof(uint64_t));
    return out.good() ? 0 : 2;
}
