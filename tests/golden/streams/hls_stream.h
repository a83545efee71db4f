// hls::stream as a FIFO between threads, as deep as the hardware's: a layer that reads from an empty one or writes
// to a full one waits. A wait that nobody ends is a deadlock.

#ifndef TEST_HLS_STREAM_H_
#define TEST_HLS_STREAM_H_

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace hls {

template <class T, int DEPTH = 0> class stream {
  public:
    explicit stream(const char *name = "", size_t depth = std::numeric_limits<size_t>::max())
        : name(name), depth(depth) {}
    stream(const stream &) = delete;

    T read() {
        std::unique_lock<std::mutex> held(lock);
        wait(held, [this] { return !values.empty(); }, "empty");
        T value = values.front();
        values.pop_front();
        moved.notify_all();
        return value;
    }
    void read(T &value) { value = read(); }
    bool read_nb(T &value) {
        std::unique_lock<std::mutex> held(lock);
        if (values.empty())
            return false;
        value = values.front();
        values.pop_front();
        return true;
    }
    void write(const T &value) {
        std::unique_lock<std::mutex> held(lock);
        wait(held, [this] { return values.size() < depth; }, "full");
        values.push_back(value);
        moved.notify_all();
    }
    bool empty() {
        std::unique_lock<std::mutex> held(lock);
        return values.empty();
    }
    size_t size() {
        std::unique_lock<std::mutex> held(lock);
        return values.size();
    }

  private:
    std::string name;
    size_t depth;
    std::deque<T> values;
    std::mutex lock;
    std::condition_variable moved;

    template <class UNTIL> void wait(std::unique_lock<std::mutex> &held, UNTIL until, const char *state) {
        if (moved.wait_for(held, std::chrono::seconds(8), until))
            return;
        std::printf("DEADLOCK %s is %s\n", name.c_str(), state);
        std::fflush(stdout);
        std::_Exit(9);
    }
};

} // namespace hls

// Runs each layer in a thread of its own, and waits for all at the end of the function.
struct flow_threads {
    std::vector<std::thread> running;
    template <class LAYER> void add(LAYER layer) { running.emplace_back(layer); }
    ~flow_threads() {
        for (std::thread &one : running)
            one.join();
    }
};

#endif
