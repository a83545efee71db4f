// Test bench of the AXI4-Stream top, for g++ and for Vitis HLS (csim and cosim).
//
//   testbench                                   compares tb_data/inputs.dat with tb_data/golden.dat, exactly
//   testbench inputs.bin outputs.bin [folder]   runs inputs.bin; writes outputs.bin, and every layer to the folder
//
// Values are integers in LSBs. A line of a .dat file is a frame, input after input (output after output); a .bin
// file holds int64, a .f64 file doubles, both little-endian and without a header.
//
// The samples go in as batches of 1, 2, 3, ..., each with TLAST at its end alone; so it must come back.
//
// Exit status: 0 equal (or written), 1 a value or the framing differs, 2 the arguments or a file that is read
// break a rule, 3 a file cannot be written.
//
// Packing is spelled out here once more, on plain integers, so that the top is checked against an independent
// reading of the format.

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "testbench.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the .bin and .f64 files are little-endian"
#endif

// hls4ml's layers look for these in the program that drives them.
namespace nnet {
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
} // namespace nnet

namespace {

enum { EQUAL = 0, DIFFERENT = 1, BAD_INPUT = 2, CANNOT_WRITE = 3 };

typedef std::vector<int64_t> frame_t;

int fail(int status, const std::string &text) {
    std::cerr << "testbench: " << text << std::endl;
    return status;
}

unsigned lane_bits(int width) { return width <= 8 ? 8 : width <= 16 ? 16 : width <= 32 ? 32 : 64; }

unsigned frame_words(unsigned values, unsigned lane) { return (values * lane + 31) / 32; }

bool fits(int64_t value, int width, bool is_signed) {
    if (!is_signed)
        return value >= 0 && (width >= 63 || value < (int64_t(1) << width));
    return width >= 64 || (value >= -(int64_t(1) << (width - 1)) && value < (int64_t(1) << (width - 1)));
}

unsigned values_of(const flow_port *ports, unsigned count) {
    unsigned values = 0;
    for (unsigned p = 0; p < count; p++)
        values += ports[p].size;
    return values;
}

const unsigned FLOW_INPUT_SIZE = values_of(FLOW_DESIGN.inputs, FLOW_DESIGN.input_count);
const unsigned FLOW_OUTPUT_SIZE = values_of(FLOW_DESIGN.outputs, FLOW_DESIGN.output_count);

// Put the values of a port into words, first value in the lowest bits.
void to_words(const int64_t *values, const flow_port &port, std::vector<uint32_t> &words) {
    const unsigned lane = lane_bits(port.width);
    words.assign(frame_words(port.size, lane), 0);
    for (size_t i = 0; i < port.size; i++) {
        const uint64_t bits = uint64_t(values[i]);
        if (lane == 64) {
            words[2 * i] = uint32_t(bits);
            words[2 * i + 1] = uint32_t(bits >> 32);
        } else {
            const uint32_t mask = lane == 32 ? 0xffffffffu : (1u << lane) - 1;
            words[i * lane / 32] |= (uint32_t(bits) & mask) << (i * lane % 32);
        }
    }
}

// Take the lane of value i out of a port's words; a lane that is not extended right gives a wrong value.
int64_t from_words(const std::vector<uint32_t> &words, size_t i, unsigned lane, bool is_signed) {
    if (lane == 64)
        return int64_t(uint64_t(words[2 * i]) | uint64_t(words[2 * i + 1]) << 32);
    const uint32_t bits = words[i * lane / 32] >> (i * lane % 32);
    if (lane == 32)
        return is_signed ? int64_t(int32_t(bits)) : int64_t(bits);
    if (lane == 16)
        return is_signed ? int64_t(int16_t(bits)) : int64_t(uint16_t(bits));
    return is_signed ? int64_t(int8_t(bits)) : int64_t(uint8_t(bits));
}

int framing(size_t sample, const std::string &text) {
    std::ostringstream line;
    line << "FRAMING sample " << sample << ": " << text;
    std::cout << line.str() << std::endl;
    return DIFFERENT;
}

// Whether a batch ends with a sample; the last batch holds the samples that are left. The lengths grow so that no
// rule of its own, such as every other frame, gives the same TLAST.
bool ends_batch(size_t sample, size_t samples) {
    size_t end = 0;
    for (size_t length = 1; end <= sample; length++)
        end += length;
    return sample + 1 == end || sample + 1 == samples;
}

// Put a frame's words into the stream; `ends`: TLAST on its last word.
void send(const frame_t &input, bool ends, hls::stream<axis_word_t> &to_top, std::vector<uint32_t> &words) {
    const size_t ports = FLOW_DESIGN.input_count;
    const int64_t *values = input.data();
    for (size_t p = 0; p < ports; p++) {
        to_words(values, FLOW_DESIGN.inputs[p], words);
        values += FLOW_DESIGN.inputs[p].size;
        for (size_t i = 0; i < words.size(); i++) {
            axis_word_t word;
            word.data = words[i];
            word.keep = -1;
            word.strb = -1;
            word.last = ends && p + 1 == ports && i + 1 == words.size();
            to_top.write(word);
        }
    }
}

// Take the words of one output; `ends`: TLAST must be on its last word.
int receive(size_t sample, const flow_port &port, bool ends, hls::stream<axis_word_t> &from_top,
            std::vector<uint32_t> &words, int64_t *values) {
    const unsigned lane = lane_bits(port.width);
    words.resize(frame_words(port.size, lane));
    for (size_t i = 0; i < words.size(); i++) {
        axis_word_t word;
        if (!from_top.read_nb(word))
            return framing(sample, "the top must write every output word, not fewer");
        words[i] = uint32_t(word.data.to_uint64());
        if ((word.last == 1) != (ends && i + 1 == words.size()))
            return framing(sample, "TLAST must be on the last output word if it was on the last input word, and "
                                   "nowhere else");
        if (word.keep.to_uint64() != 0xf)
            return framing(sample, "TKEEP must be all ones");
    }
    for (unsigned i = 0; i < port.size; i++)
        values[i] = from_words(words, i, lane, port.is_signed);
    const unsigned used = port.size * lane % 32;
    if (used != 0 && words.back() >> used != 0)
        return framing(sample, "the last word of an output must be padded with zeros");
    return EQUAL;
}

// Run one frame through the top; checks the framing of its output. `ends`: it goes in with TLAST.
int run_frame(size_t sample, bool ends, const frame_t &input, frame_t &output) {
    static hls::stream<axis_word_t> to_top("to_top");
    static hls::stream<axis_word_t> from_top("from_top");
    static std::vector<uint32_t> words;
    send(input, ends, to_top, words);

    FLOW_DESIGN.run(to_top, from_top);

    if (!to_top.empty())
        return framing(sample, "the top must read every input word, not leave some");
    output.resize(FLOW_OUTPUT_SIZE);
    const size_t ports = FLOW_DESIGN.output_count;
    int64_t *values = output.data();
    for (size_t p = 0; p < ports; p++) {
        const bool last = ends && p + 1 == ports;
        if (int status = receive(sample, FLOW_DESIGN.outputs[p], last, from_top, words, values))
            return status;
        values += FLOW_DESIGN.outputs[p].size;
    }
    if (!from_top.empty())
        return framing(sample, "the top must write one frame, not more words");
    return EQUAL;
}

int check_input(size_t sample, const frame_t &frame) {
    size_t i = 0;
    for (unsigned p = 0; p < FLOW_DESIGN.input_count; p++) {
        const flow_port &port = FLOW_DESIGN.inputs[p];
        for (const size_t end = i + port.size; i < end; i++)
            if (!fits(frame[i], port.width, port.is_signed)) {
                std::ostringstream text;
                text << "sample " << sample << " input " << i << " must fit the input's type, not be " << frame[i]
                     << " LSB";
                return fail(BAD_INPUT, text.str());
            }
    }
    return EQUAL;
}

// Read a .dat file: from tb_data/, or by its name alone, where Vitis copies it.
int read_dat(const std::string &name, unsigned size, std::vector<frame_t> &frames) {
    std::ifstream file(("tb_data/" + name).c_str());
    if (!file.is_open()) {
        file.clear();
        file.open(name.c_str());
    }
    if (!file.is_open())
        return fail(BAD_INPUT, "tb_data/" + name + " must be there, not missing");
    std::string line;
    while (std::getline(file, line)) {
        std::ostringstream where;
        where << "tb_data/" << name << " line " << frames.size() + 1;
        if (file.eof())
            return fail(BAD_INPUT, where.str() + " must end in a line feed, not with the file");
        std::istringstream values(line);
        frame_t frame;
        int64_t value;
        while (values >> value)
            frame.push_back(value);
        if (!values.eof() || frame.size() != size) {
            where << " must hold " << size << " integers, not '" << line.substr(0, 60) << "'";
            return fail(BAD_INPUT, where.str());
        }
        frames.push_back(frame);
    }
    if (file.bad() || frames.empty())
        return fail(BAD_INPUT, "tb_data/" + name + " must hold frames, not be empty or unreadable");
    return EQUAL;
}

int compare() {
    std::vector<frame_t> inputs, golden;
    if (int status = read_dat("inputs.dat", FLOW_INPUT_SIZE, inputs))
        return status;
    if (int status = read_dat("golden.dat", FLOW_OUTPUT_SIZE, golden))
        return status;
    if (inputs.size() != golden.size()) {
        std::ostringstream text;
        text << "tb_data/golden.dat must hold " << inputs.size() << " frames as inputs.dat does, not " << golden.size();
        return fail(BAD_INPUT, text.str());
    }
    for (size_t sample = 0; sample < inputs.size(); sample++) {
        if (int status = check_input(sample, inputs[sample]))
            return status;
        frame_t output;
        if (int status = run_frame(sample, ends_batch(sample, inputs.size()), inputs[sample], output))
            return status;
        for (unsigned i = 0; i < FLOW_OUTPUT_SIZE; i++)
            if (output[i] != golden[sample][i]) {
                std::cout << "MISMATCH sample " << sample << " output " << i << " expected " << golden[sample][i]
                          << " got " << output[i] << std::endl;
                return DIFFERENT;
            }
    }
    std::cout << "PASS: " << inputs.size() << " samples equal, 0 LSB" << std::endl;
    return EQUAL;
}

int read_bin(const std::string &path, std::vector<frame_t> &frames) {
    std::ifstream file(path.c_str(), std::ios::binary);
    if (!file.is_open())
        return fail(BAD_INPUT, path + " must be readable, not missing");
    frame_t frame(FLOW_INPUT_SIZE);
    const std::streamsize bytes = FLOW_INPUT_SIZE * sizeof(int64_t);
    while (file.read(reinterpret_cast<char *>(frame.data()), bytes))
        frames.push_back(frame);
    if (file.bad() || file.gcount() != 0 || frames.empty())
        return fail(BAD_INPUT, path + " must hold one or more whole frames of int64, not end inside one");
    return EQUAL;
}

// A file that is written in pieces; every piece and the end are checked.
class Output {
  public:
    Output() : file(NULL) {}
    ~Output() {
        if (file)
            std::fclose(file);
    }
    int open(const std::string &file_path) {
        path = file_path;
        file = std::fopen(path.c_str(), "wb");
        return file ? EQUAL : refuse();
    }
    int write(const void *data, size_t bytes) { return std::fwrite(data, 1, bytes, file) == bytes ? EQUAL : refuse(); }
    int close() {
        const bool closed = std::fclose(file) == 0;
        file = NULL;
        return closed ? EQUAL : refuse();
    }

  private:
    std::string path;
    std::FILE *file;

    Output(const Output &);
    Output &operator=(const Output &);

    int refuse() { return fail(CANNOT_WRITE, path + " must be writable, not fail with '" + std::strerror(errno) + "'"); }
};

// The layers' values of one sample, where hls4ml leaves them, and the files that they go to.
class Trace {
  public:
    Trace() : values(FLOW_DESIGN.layer_count), files(FLOW_DESIGN.layer_count) {}
    ~Trace() {
        nnet::trace_enabled = false;
        nnet::trace_outputs = NULL;
    }
    int open(const std::string &folder) {
        for (unsigned i = 0; i < FLOW_DESIGN.layer_count; i++) {
            values[i].resize(FLOW_DESIGN.layers[i].size);
            places[FLOW_DESIGN.layers[i].name] = values[i].data();
            if (int status = files[i].open(folder + "/" + FLOW_DESIGN.layers[i].name + ".f64"))
                return status;
        }
        nnet::trace_outputs = &places;
        nnet::trace_type_size = sizeof(double);
        nnet::trace_enabled = true;
        return EQUAL;
    }
    // No layer yields a NaN: one that is still there afterwards was never written.
    void arm() {
        for (unsigned i = 0; i < values.size(); i++)
            values[i].assign(values[i].size(), std::numeric_limits<double>::quiet_NaN());
    }
    int write() {
        for (unsigned i = 0; i < values.size(); i++) {
            for (size_t j = 0; j < values[i].size(); j++)
                if (values[i][j] != values[i][j])
                    return fail(BAD_INPUT, std::string("layer '") + FLOW_DESIGN.layers[i].name +
                                               "' must be traced in full, not in part; convert with Trace = True");
            if (int status = files[i].write(values[i].data(), values[i].size() * sizeof(double)))
                return status;
        }
        return EQUAL;
    }
    int close() {
        for (unsigned i = 0; i < files.size(); i++)
            if (int status = files[i].close())
                return status;
        return EQUAL;
    }

  private:
    std::vector<std::vector<double>> values;
    std::vector<Output> files;
    std::map<std::string, void *> places;
};

int run(const std::string &inputs_path, const std::string &outputs_path, const char *trace_folder) {
    std::vector<frame_t> inputs;
    if (int status = read_bin(inputs_path, inputs))
        return status;
    Output outputs;
    if (int status = outputs.open(outputs_path))
        return status;
    Trace trace;
    if (trace_folder)
        if (int status = trace.open(trace_folder))
            return status;
    for (size_t sample = 0; sample < inputs.size(); sample++) {
        if (int status = check_input(sample, inputs[sample]))
            return status;
        frame_t output;
        if (trace_folder)
            trace.arm();
        if (int status = run_frame(sample, ends_batch(sample, inputs.size()), inputs[sample], output))
            return status;
        if (int status = outputs.write(output.data(), output.size() * sizeof(int64_t)))
            return status;
        if (trace_folder)
            if (int status = trace.write())
                return status;
    }
    if (trace_folder)
        if (int status = trace.close())
            return status;
    return outputs.close();
}

} // namespace

int main(int argc, char **argv) {
    if (argc == 1)
        return compare();
    if (argc == 3 || argc == 4)
        return run(argv[1], argv[2], argc == 4 ? argv[3] : NULL);
    return fail(BAD_INPUT, "arguments must be none, or inputs.bin outputs.bin [folder]");
}
