// A board in Verilator behind a pseudo terminal: bytes that a host writes become bits on `rx`, bits on `tx` bytes.
//
//   serial_board CLOCKS_PER_BIT DAMAGE
//
// Prints the terminal's path and runs until its input is closed. DAMAGE n > 0: flips a bit of every n-th byte that the
// host sends, and of every n-th that the board sends.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include "Vtop.h"
#include "verilated.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const long bit = std::atol(argv[1]), damage = std::atol(argv[2]);
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master)) return 3;
    const int keep = open(ptsname(master), O_RDWR | O_NOCTTY);  // the terminal stays when the host closes it
    termios raw;
    tcgetattr(keep, &raw);
    cfmakeraw(&raw);
    tcsetattr(keep, TCSANOW, &raw);
    std::printf("%s\n", ptsname(master));
    std::fflush(stdout);
    fcntl(master, F_SETFL, O_NONBLOCK);
    auto context = std::make_unique<VerilatedContext>();
    context->randReset(2);
    auto top = std::make_unique<Vtop>(context.get());
    std::deque<unsigned char> queue;
    long sending = -1, receiving = -1, from_host = 0, from_board = 0;
    unsigned out = 0, in = 0;
    top->rx = 1;
    for (unsigned long clock = 1;; clock++) {  // the first bytes come when the reset after loading is over
        if (clock % 256 == 0) {
            pollfd closed{0, POLLIN | POLLHUP, 0};
            if (poll(&closed, 1, 0) > 0) return 0;
            unsigned char bytes[256];
            const ssize_t count = read(master, bytes, sizeof bytes);
            for (ssize_t i = 0; i < count; i++) {
                if (damage > 0 && ++from_host % damage == 0) bytes[i] ^= 0x10;
                queue.push_back(bytes[i]);
            }
        }
        if (sending < 0 && !queue.empty()) {
            out = queue.front() << 1 | 0x200;
            queue.pop_front();
            sending = 0;
        }
        if (sending >= 0) {
            top->rx = out >> (sending / bit) & 1;
            if (++sending == 10 * bit) sending = -1;
        }
        top->clk = 0, top->eval(), top->clk = 1, top->eval();
        if (receiving < 0 && !top->tx) receiving = 0, in = 0;
        if (receiving >= 0) {
            if (receiving % bit == bit / 2) in |= static_cast<unsigned>(top->tx) << (receiving / bit);
            if (++receiving == 10 * bit - bit / 4) {
                unsigned char byte = in >> 1;
                if (damage > 0 && ++from_board % damage == 0) byte ^= 0x01;
                if (write(master, &byte, 1) != 1) return 4;
                receiving = -1;
            }
        }
    }
}
