// hls::stream for emulation with g++: a first-in first-out buffer that grows as it must.

#ifndef FLOW_EMULATION_HLS_STREAM_H_
#define FLOW_EMULATION_HLS_STREAM_H_

#include <cstdio>
#include <cstdlib>
#include <iostream> // hls4ml's layers rely on these two to come with the vendor's header
#include <sstream>

namespace hls {

template <class T, int DEPTH = 0> class stream {
  public:
    stream() : stream("stream") {}
    stream(const char *stream_name) : name(stream_name) {}
    stream(const stream &) = delete;
    stream &operator=(const stream &) = delete;
    ~stream() { std::free(values); }

    void write(const T &value) {
        if (end == room)
            make_room();
        values[end++] = value;
    }
    bool write_nb(const T &value) {
        write(value);
        return true;
    }
    // Reading more than was written is a fault of the design: a value that nobody wrote must not go on.
    T read() {
        if (first == end) {
            std::fprintf(stderr, "hls::stream '%s' must be written before it is read, not be empty\n", name);
            std::exit(4);
        }
        return values[first++];
    }
    void read(T &value) { value = read(); }
    bool read_nb(T &value) {
        if (empty())
            return false;
        value = read();
        return true;
    }
    void operator<<(const T &value) { write(value); }
    void operator>>(T &value) { value = read(); }
    bool empty() const { return first == end; }
    bool full() const { return false; }
    size_t size() const { return end - first; }
    void set_name(const char *stream_name) { name = stream_name; }

    // What is read after `ahead` other values; the vendor's stream does not have it.
    const T &peek(size_t ahead) const { return values[first + ahead]; }

  private:
    const char *name;
    T *values = nullptr;
    size_t first = 0, end = 0, room = 0;

    void make_room() {
        if (first > 0 && first >= room / 2) {
            for (size_t i = first; i < end; i++)
                values[i - first] = values[i];
            end -= first;
            first = 0;
            return;
        }
        room = room == 0 ? 16 : 4 * room;
        values = static_cast<T *>(std::realloc(static_cast<void *>(values), room * sizeof(T)));
        if (!values)
            std::abort();
    }
};

} // namespace hls

#endif
