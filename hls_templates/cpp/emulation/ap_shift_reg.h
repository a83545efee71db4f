// ap_shift_reg for emulation with g++: a ring, so that a shift moves no values.

#ifndef FLOW_EMULATION_AP_SHIFT_REG_H_
#define FLOW_EMULATION_AP_SHIFT_REG_H_

template <class T, unsigned DEPTH = 32> class ap_shift_reg {
  public:
    ap_shift_reg() = default;
    ap_shift_reg(const char *) {}
    ap_shift_reg(const ap_shift_reg &) = delete;
    ap_shift_reg &operator=(const ap_shift_reg &) = delete;

    // Read the value shifted in `address` + 1 shifts ago, and shift `value` in.
    T shift(T value, unsigned address = DEPTH - 1, bool enable = true) {
        const T result = read(address);
        if (enable) {
            newest = newest == 0 ? DEPTH - 1 : newest - 1;
            values[newest] = value;
        }
        return result;
    }
    T read(unsigned address = DEPTH - 1) const {
        const unsigned place = newest + address;
        return values[place < DEPTH ? place : place - DEPTH];
    }

  private:
    T values[DEPTH];
    unsigned newest = 0;
};

#endif
