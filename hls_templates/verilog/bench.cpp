// Drives any top with valid/ready streams, clock by clock. `binding.h`, written for the top, names its ports.
//
//   bench STALL SEED RESET_AFTER LIMIT [BEATS of each output]
//
// Reads input<i>.bin, writes output<i>.bin: for each beat its clock, whether it was the last of a frame, and its
// words. STALL: how often, in 2^-32, a side withholds its beat; RESET_AFTER: clocks until reset, -1 for none.
// Exit status: 0, 2 wrong use, 3 outputs missing after LIMIT clocks, 4 an output gave more than its beats.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "verilated.h"
#ifdef FLOW_VCD
#include "verilated_vcd_c.h"
#endif

template <class T> void put(T &port, const uint64_t *words) { port = static_cast<T>(words[0]); }
template <std::size_t N> void put(VlWide<N> &port, const uint64_t *words) {
    for (std::size_t i = 0; i < N; i++) port[i] = static_cast<uint32_t>(words[i / 2] >> (32 * (i % 2)));
}
template <class T> void get(const T &port, uint64_t *words) { words[0] = port; }
template <std::size_t N> void get(const VlWide<N> &port, uint64_t *words) {
    for (std::size_t i = 0; i < N; i++) words[i / 2] |= static_cast<uint64_t>(port[i]) << (32 * (i % 2));
}
template <class T> constexpr std::size_t words_of() { return (sizeof(T) + 7) / 8; }

#include "binding.h"

constexpr uint64_t AFTERWARDS = 100;  // clocks that show whether more beats come than should

struct Input {
    std::vector<uint64_t> words;
    std::size_t width = 1, next = 0;
    bool offered = false;
    std::size_t beats() const { return words.size() / width; }
};

struct Output {
    std::vector<uint64_t> rows;
    std::size_t width = 1, wanted = 0, got = 0;
    bool ready = false;
};

static std::vector<uint64_t> read(const char *name) {
    std::FILE *file = std::fopen(name, "rb");
    if (!file) std::exit((std::fprintf(stderr, "cannot read %s\n", name), 2));
    std::fseek(file, 0, SEEK_END);
    std::vector<uint64_t> words(std::ftell(file) / 8);
    std::rewind(file);
    if (std::fread(words.data(), 8, words.size(), file) != words.size()) std::exit(2);
    std::fclose(file);
    return words;
}

int main(int argc, char **argv) {
    if (argc != 5 + OUTPUTS) return std::fprintf(stderr, "bench: wrong arguments\n"), 2;
    const uint64_t stall = std::strtoull(argv[1], nullptr, 10), limit = std::strtoull(argv[4], nullptr, 10);
    std::mt19937 random(std::strtoul(argv[2], nullptr, 10));
    long long reset_after = std::atoll(argv[3]);
    auto context = std::make_unique<VerilatedContext>();
    auto top = std::make_unique<Top>(context.get());
    std::vector<Input> inputs(INPUTS);
    std::vector<Output> outputs(OUTPUTS);
    char name[32];
    for (int i = 0; i < INPUTS; i++) {
        std::snprintf(name, sizeof name, "input%d.bin", i);
        inputs[i].words = read(name);
        inputs[i].width = input_words(*top, i);
    }
    for (int i = 0; i < OUTPUTS; i++) {
        outputs[i].width = output_words(*top, i);
        outputs[i].wanted = std::strtoull(argv[5 + i], nullptr, 10);
    }
#ifdef FLOW_VCD
    context->traceEverOn(true);
    VerilatedVcdC wave;
    top->trace(&wave, 99);
    wave.open("wave.vcd");
#endif
    uint64_t half = 0;
    auto step = [&](bool high) {
        set_clock(*top, high);
        top->eval();
#ifdef FLOW_VCD
        wave.dump(half);
#endif
        half++;
    };
    auto reset = [&] {
        set_reset(*top, true);
        for (int i = 0; i < INPUTS; i++) set_valid(*top, i, inputs[i].offered = false);
        for (int i = 0; i < OUTPUTS; i++) set_ready(*top, i, false);
        for (int i = 0; i < 3; i++) step(false), step(true);
        set_reset(*top, false);
        for (auto &input : inputs) input.next = 0;
        for (auto &output : outputs) output.rows.clear(), output.got = 0;
    };
    auto go = [&] { return stall == 0 || random() >= stall; };
    reset();
    uint64_t clock = 0, ended = 0;
    for (;; clock++) {
        if (reset_after >= 0 && clock == static_cast<uint64_t>(reset_after)) {
            reset();
            reset_after = -1;
            clock = 0;
        }
        bool done = true;
        for (auto &output : outputs) done &= output.got >= output.wanted;
        if (done && reset_after < 0 && ended == 0) ended = clock;
        if (ended != 0 && clock == ended + AFTERWARDS) break;
        if (ended == 0 && clock >= limit) {
            for (int i = 0; i < OUTPUTS; i++)
                std::printf("bench: output %d has %zu of %zu beats\n", i, outputs[i].got, outputs[i].wanted);
            return 3;
        }
        for (int i = 0; i < INPUTS; i++) {
            auto &input = inputs[i];
            if (!input.offered && input.next < input.beats() && go()) {
                input.offered = true;
                set_data(*top, i, &input.words[input.next * input.width]);
            }
            set_valid(*top, i, input.offered);
        }
        for (int i = 0; i < OUTPUTS; i++) set_ready(*top, i, outputs[i].ready = go());
        step(false);
        for (int i = 0; i < INPUTS; i++)
            if (inputs[i].offered && is_ready(*top, i)) inputs[i].offered = false, inputs[i].next++;
        for (int i = 0; i < OUTPUTS; i++) {
            auto &output = outputs[i];
            if (!output.ready || !is_valid(*top, i)) continue;
            const std::size_t at = output.rows.size();
            output.rows.resize(at + 2 + output.width);
            output.rows[at] = clock;
            output.rows[at + 1] = is_last(*top, i);
            get_data(*top, i, &output.rows[at + 2]);
            if (output.got++ == output.wanted && reset_after < 0) {
                std::printf("bench: output %d gave more than %zu beats\n", i, output.wanted);
                return 4;
            }
        }
        step(true);
    }
    top->final();
#ifdef FLOW_VCD
    wave.close();
#endif
    for (int i = 0; i < OUTPUTS; i++) {
        std::snprintf(name, sizeof name, "output%d.bin", i);
        std::FILE *file = std::fopen(name, "wb");
        if (!file || std::fwrite(outputs[i].rows.data(), 8, outputs[i].rows.size(), file) != outputs[i].rows.size() ||
            std::fclose(file) != 0)
            return std::fprintf(stderr, "cannot write %s\n", name), 2;
    }
    std::printf("%llu clocks\n", static_cast<unsigned long long>(ended));
    return 0;
}
