"""Small .bit files of a 7 series chip, packet by packet, with a checksum calculated bit by bit (AMD UG470)."""

import struct

IDCODES = {"7z020clg400": 0x0372_7093, "7z010clg400": 0x0372_2093}
CRC, FDRI, CMD, IDCODE = 0, 2, 4, 12
RCRC, WCFG, DESYNC = 7, 1, 13
NOOP = 0x2000_0000


def crc_step(crc: int, register: int, word: int) -> int:
    """Return the checksum after a word is written to a register: CRC-32C over 37 bits, the word's lowest first."""
    value = register << 32 | word
    for bit in range(37):
        low = (crc ^ value >> bit) & 1
        crc = crc >> 1 ^ (0x82F6_3B78 if low else 0)
    return crc


class _Packets:
    def __init__(self) -> None:
        self.words: list[int] = []
        self.crc = 0

    def write(self, register: int, *values: int) -> None:
        head = 0x3000_0000 | register << 13
        long = len(values) > 1
        self.words += [head, 0x5000_0000 | len(values)] if long else [head | 1]
        self.words += values
        for value in values:
            self.crc = 0 if (register, value) == (CMD, RCRC) else crc_step(self.crc, register, value)


def bit_file(part: str = "7z020clg400", frames: int = 3, *, idcode: int | None = None) -> bytes:
    """Return a whole .bit file; its frames hold counting words."""
    packets = _Packets()
    packets.write(CMD, RCRC)
    packets.write(IDCODE, IDCODES.get(part, 0) if idcode is None else idcode)
    packets.write(CMD, WCFG)
    packets.write(FDRI, *range(101 * frames))
    packets.write(CRC, packets.crc)
    packets.write(CMD, DESYNC)
    start = [0xFFFF_FFFF] * 8 + [0x0000_00BB, 0x1122_0044, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xAA99_5566, NOOP]
    data = b"".join(struct.pack(">I", word) for word in (*start, *packets.words, *[NOOP] * 8))
    return bit_header(part, len(data)) + data


def bit_header(part: str, size_bytes: int) -> bytes:
    """Return what stands before the configuration in a .bit file."""
    fields = (
        (b"a", "system_wrapper;UserID=0XFFFFFFFF;Version=2023.2"),
        (b"b", part),
        (b"c", "2026/11/29"),
        (b"d", "12:34:56"),
    )
    head = bytes.fromhex("00090ff00ff00ff00ff000") + b"\x00\x01"
    for key, text in fields:
        head += key + struct.pack(">H", len(text) + 1) + text.encode() + b"\0"
    return head + b"e" + struct.pack(">I", size_bytes)
