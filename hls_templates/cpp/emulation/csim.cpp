// The part of csim.h that is compiled once a machine.

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace nnet { // the test bench's; hls4ml's layers look for them too
extern bool trace_enabled;
extern std::map<std::string, void *> *trace_outputs;
} // namespace nnet

namespace flow_csim {

const double *weights(const char *name, size_t count) {
    static std::vector<double> values; // each file is read into its layer before the next
    values.clear();
    const std::string path = std::string("weights/") + name;
    std::FILE *file = std::fopen(path.c_str(), "rb");
    if (!file) {
        std::fprintf(stderr, "csim: %s must be readable, not missing\n", path.c_str());
        std::exit(2);
    }
    std::string text;
    char piece[1 << 16];
    while (size_t got = std::fread(piece, 1, sizeof piece, file))
        text.append(piece, got);
    std::fclose(file);
    const char *at = text.c_str();
    for (char *end; ; at = end + 1) {
        const double value = std::strtod(at, &end);
        if (end == at)
            break;
        values.push_back(value);
        if (*end != ',')
            break;
    }
    if (values.size() != count) {
        std::fprintf(stderr, "csim: %s must hold %zu numbers, not %zu\n", path.c_str(), count, values.size());
        std::exit(2);
    }
    return values.data();
}

double *trace(const char *layer) {
    if (!nnet::trace_enabled || !nnet::trace_outputs)
        return NULL;
    const auto found = nnet::trace_outputs->find(layer);
    return found == nnet::trace_outputs->end() ? NULL : static_cast<double *>(found->second);
}

} // namespace flow_csim
