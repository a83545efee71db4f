// Drives a top with a clock `aclk` for a program at the other end of two pipes, clock by clock.
//
// In: a value of 32 bits for each input port, and a last one: not 0: counters are set close to their end first.
// Out: each output port's value in that clock, before its rising edge. ports.h lists both, in this order.

#include <cstdint>
#include <cstdio>
#include <memory>

#include "Vtop.h"
#include "Vtop___024root.h"
#include "verilated.h"

#include "ports.h"

#define COUNT(name) +1
#define SET(name) top->name = given[i++];
#define GET(name) made[i++] = top->name;

static void set_counters(Vtop &top) {
    Vtop___024root &root = *top.rootp;
    const uint32_t close = 0xFFFFFFFD;
    root.flow_monitor__DOT__cycles = 0x1FFFFFFC0;
    for (auto *counter : {&root.flow_monitor__DOT__input_words, &root.flow_monitor__DOT__output_words,
                          &root.flow_monitor__DOT__input_lasts, &root.flow_monitor__DOT__output_lasts,
                          &root.flow_monitor__DOT__input_waits, &root.flow_monitor__DOT__output_waits,
                          &root.flow_monitor__DOT__elapsed})
        *counter = close;
}

int main() {
    auto context = std::make_unique<VerilatedContext>();
    auto top = std::make_unique<Vtop>(context.get());
    uint32_t given[0 INPUTS(COUNT) + 1], made[0 OUTPUTS(COUNT)];
    while (std::fread(given, sizeof given, 1, stdin) == 1) {
        unsigned i = 0;
        top->aclk = 0;
        INPUTS(SET)
        if (given[i])
            set_counters(*top);
        top->eval();
        i = 0;
        OUTPUTS(GET)
        top->aclk = 1;
        top->eval();
        std::fwrite(made, sizeof made, 1, stdout);
        std::fflush(stdout);
    }
    return 0;
}
