"""Hardware hand-offs of Vivado (``.hwh``, or an ``.hdf`` or ``.xsa`` with one): what is in a block design, and where.

The file comes from elsewhere: its XML may have no document type, so no entities, and its archive has limits.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flow.errors import ConfigError, ToolError

_LIMIT_BYTES = 64 << 20
_AXIS = "xilinx.com:interface:axis:"
_UNCONNECTED = "__NOC__"
# cells that give a stream on as it came
_THROUGH = frozenset({"flow_monitor", "axis_data_fifo", "axis_register_slice", "axis_clock_converter"})
# of the fabric's first clock as the dividers give it
_CLOCKS = {
    "processing_system7": "PCW_ACT_FPGA0_PERIPHERAL_FREQMHZ",
    "zynq_ultra_ps_e": "PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ",
}


@dataclass(frozen=True)
class Processor:
    """The processor's cell; ``actual_clock_mhz``: of the fabric's first clock as the dividers give it."""

    actual_clock_mhz: float | None


@dataclass(frozen=True)
class Cell:
    """Any other cell; ``base_address`` and ``span`` in bytes are ``None`` where the processor does not reach it."""

    instance: str
    type: str
    base_address: int | None = None
    span: int | None = None


@dataclass(frozen=True)
class Dma(Cell):
    """An AXI DMA. ``mm2s`` reads memory into a stream, ``s2mm`` writes one to memory; widths are in bits.

    ``feeds``: the cells that the words of M_AXIS_MM2S pass, in order, up to one that gives none on. ``fed_by``: those
    that the words of S_AXIS_S2MM came through, the nearest first.
    """

    length_bits: int = 0
    address_bits: int = 0
    scatter_gather: bool = False
    mm2s_stream_bits: int | None = None
    s2mm_stream_bits: int | None = None
    feeds: tuple[str, ...] = ()
    fed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Handoff:
    """A block design."""

    path: Path
    processor: Processor | None
    dmas: tuple[Dma, ...] = ()
    cells: tuple[Cell, ...] = ()


def read(path: Path, *, subject: str = "deploy") -> Handoff:
    """Return what a hand-off holds; of an archive, its block design with the processor.

    Args:
        path: ``.hwh``, or an archive that holds one (``.hdf``, ``.xsa``); not trusted.
        subject: who asks, for messages.

    Raises:
        ConfigError: the file cannot be read.
        ToolError: it is no hand-off, or a damaged one.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _LIMIT_BYTES:
            raise _damaged(path, subject, f"have at most {_LIMIT_BYTES:,} bytes", f"{size_bytes:,}")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{subject}: hand-off {path} must be a readable file, not fail with {error.strerror!r}; build it first"
        ) from error
    if not data.startswith(b"PK\x03\x04"):
        return _parse(data, path, subject)
    found = [_parse(text, path, subject) for text in _members(data, path, subject)]
    whole = [handoff for handoff in found if handoff.processor is not None]
    if len(whole) != 1:
        raise _damaged(
            path, subject, "hold one .hwh file with a processor", f"{len(whole)} of {len(found)} .hwh files"
        )
    return whole[0]


def require_dma(
    handoff: Handoff, network_type: str, *, subject: str = "deploy", stream_bits: int = 32
) -> Dma:
    """Return the DMA that sends to the network and receives from it, in simple mode.

    Args:
        handoff: see `read`.
        network_type: the type of the network's cell, ``<top>_axis``.
        subject: who asks, for messages.
        stream_bits: width of the words to and from the network.

    Raises:
        ConfigError: there is none, or not one alone; it uses scatter-gather, has another width, lacks a direction, or
            the processor does not reach it.
    """
    networks = {cell.instance for cell in handoff.cells if cell.type == network_type}
    if not networks:
        types = ", ".join(sorted({cell.type for cell in handoff.cells})) or "none"
        raise _refused(handoff, subject, f"hold the network's cell of type {network_type!r}", f"only {types}")
    if not handoff.dmas:
        raise _refused(handoff, subject, "hold an AXI DMA", "none")
    through = networks | {cell.instance for cell in handoff.cells if cell.type in _THROUGH}
    found = [
        dma
        for dma in handoff.dmas
        if _first(dma.feeds, through, networks) & _first(dma.fed_by, through, networks)
    ]
    if len(found) != 1:
        rule = f"connect one AXI DMA to {' or '.join(sorted(networks))} and back"
        raise _refused(handoff, subject, rule, "; ".join(map(_wiring, handoff.dmas)))
    _check_dma(handoff, found[0], subject, stream_bits)
    return found[0]


def _check_dma(handoff: Handoff, dma: Dma, subject: str, stream_bits: int) -> None:
    for holds, rule, value in (
        (not dma.scatter_gather, "have its AXI DMA in simple mode", f"{dma.instance} with scatter-gather"),
        (
            dma.base_address is not None,
            "map its AXI DMA for the processor",
            f"{dma.instance} without address",
        ),
        (
            dma.mm2s_stream_bits == dma.s2mm_stream_bits == stream_bits,
            f"have streams of {stream_bits} bits to and from the network",
            f"{dma.mm2s_stream_bits} and {dma.s2mm_stream_bits} at {dma.instance}",
        ),
    ):
        if not holds:
            raise _refused(handoff, subject, rule, value)


def _first(cells: tuple[str, ...], through: set[str], networks: set[str]) -> set[str]:
    """Return the first network on a stream, if nothing else that works on the words comes before it."""
    for cell in cells:
        if cell in networks:
            return {cell}
        if cell not in through:
            break
    return set()


def _wiring(dma: Dma) -> str:
    to, back = (" and ".join(cells) or "nothing" for cells in (dma.feeds[:1], dma.fed_by[:1]))
    return f"{dma.instance} sends to {to} and receives from {back}"


def _refused(handoff: Handoff, subject: str, rule: str, value: str) -> ConfigError:
    return ConfigError(
        f"{subject}: hand-off {handoff.path} must {rule}, not {value}; take the block design of hls_templates/tcl"
    )


def _damaged(path: Path, subject: str, rule: str, value: str) -> ToolError:
    return ToolError(f"{subject}: hand-off {path} must {rule}, not {value}; copy it again, or build it again")


def _members(data: bytes, path: Path, subject: str) -> Iterator[bytes]:
    """Yield the .hwh files of an archive; what it says of their sizes is not trusted either."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            left = _LIMIT_BYTES
            for member in archive.infolist():
                if not member.filename.endswith(".hwh"):
                    continue
                with archive.open(member) as file:
                    text = file.read(left + 1) if member.file_size <= left else b""
                if len(text) > left or member.file_size > left:
                    rule = f"hold at most {_LIMIT_BYTES:,} bytes of .hwh files"
                    raise _damaged(path, subject, rule, f"more with {member.filename!r}")
                left -= len(text)
                yield text
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise _damaged(path, subject, "be a whole archive", f"one that fails with {str(error)!r}") from error


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type: entities, which could grow without end, come from there alone."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("a document type")


def _parse(data: bytes, path: Path, subject: str) -> Handoff:
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314 - entities are refused
        parser.feed(data)
        root = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        value = f"text that fails with {str(error)!r}"
        raise _damaged(path, subject, "be whole XML without a document type", value) from error
    if root.tag != "EDKSYSTEM" or root.find("SYSTEMINFO") is None:
        raise _damaged(path, subject, "be a hand-off of Vivado", f"XML of <{root.tag[:40]}>")
    modules = [module for module in root.iterfind("MODULES/MODULE") if module.get("INSTANCE")]
    try:
        processor, dmas, cells = _cells(modules)
    except ValueError as error:
        raise _damaged(path, subject, "hold sound numbers", repr(str(error))) from error
    return Handoff(path, processor, dmas, cells)


def _cells(
    modules: list[ElementTree.Element],
) -> tuple[Processor | None, tuple[Dma, ...], tuple[Cell, ...]]:
    ranges: dict[str, tuple[int, int]] = {}
    processor = None
    for module in modules:
        if module.get("MODTYPE") in _CLOCKS:
            processor = _processor(module)
            for entry in module.iterfind("MEMORYMAP/MEMRANGE"):
                base, high = int(entry.get("BASEVALUE", ""), 0), int(entry.get("HIGHVALUE", ""), 0)
                ranges.setdefault(entry.get("INSTANCE", ""), (base, high - base + 1))
    streams = _Streams(modules)
    dmas, cells = [], []
    for module in modules:
        kind = module.get("MODTYPE", "")
        if kind == "axi_dma":
            dmas.append(_dma(module, ranges, streams))
        elif kind not in _CLOCKS:
            cells.append(Cell(*_named(module, ranges)))
    return processor, tuple(dmas), tuple(cells)


def _named(
    module: ElementTree.Element, ranges: Mapping[str, tuple[int, int]]
) -> tuple[str, str, int | None, int | None]:
    instance = module.get("INSTANCE", "")
    return instance, module.get("MODTYPE", ""), *ranges.get(instance, (None, None))


def _parameters(module: ElementTree.Element) -> dict[str, str]:
    """Return a cell's parameters by lower-case names: some are there in both cases, with one value."""
    return {
        entry.get("NAME", "").lower(): entry.get("VALUE", "")
        for entry in module.iterfind("PARAMETERS/PARAMETER")
    }


def _processor(module: ElementTree.Element) -> Processor:
    clock = _parameters(module).get(_CLOCKS[module.get("MODTYPE", "")].lower())
    return Processor(None if clock is None else float(clock))


class _End(NamedTuple):
    """One end of a stream."""

    cell: str
    interface: str
    outgoing: bool
    wire: str


def _dma(module: ElementTree.Element, ranges: Mapping[str, tuple[int, int]], streams: _Streams) -> Dma:
    values, named = _parameters(module), _named(module, ranges)

    def bits(side: str, name: str) -> int | None:
        return int(values[name]) if values.get(f"c_include_{side}") == "1" and name in values else None

    return Dma(
        *named,
        length_bits=int(values.get("c_sg_length_width", "")),
        address_bits=int(values.get("c_addr_width", "")),
        scatter_gather=values.get("c_include_sg") == "1",
        mm2s_stream_bits=bits("mm2s", "c_m_axis_mm2s_tdata_width"),
        s2mm_stream_bits=bits("s2mm", "c_s_axis_s2mm_tdata_width"),
        feeds=streams.passed(named[0], "M_AXIS_MM2S"),
        fed_by=streams.passed(named[0], "S_AXIS_S2MM"),
    )


class _Streams:
    """The AXI4-Streams of a block design."""

    def __init__(self, modules: list[ElementTree.Element]) -> None:
        self._wires: dict[tuple[str, bool], _End] = {}
        self._cells: dict[str, list[_End]] = {}
        for module in modules:
            for entry in module.iterfind("BUSINTERFACES/BUSINTERFACE"):
                if entry.get("VLNV", "").startswith(_AXIS):
                    outgoing = entry.get("TYPE") in ("INITIATOR", "MASTER")
                    wire = entry.get("BUSNAME", _UNCONNECTED)
                    end = _End(module.get("INSTANCE", ""), entry.get("NAME", ""), outgoing, wire)
                    self._cells.setdefault(end.cell, []).append(end)
                    if wire != _UNCONNECTED:
                        self._wires[wire, outgoing] = end

    def passed(self, cell: str, interface: str) -> tuple[str, ...]:
        """Return the cells that the words pass behind an output, or came through before an input."""
        at = next((end for end in self._cells.get(cell, []) if end.interface == interface), None)
        found, seen = [], set()
        while at is not None and at not in seen:
            seen.add(at)
            other = self._wires.get((at.wire, not at.outgoing))
            if other is None or other.cell == cell:
                break
            found.append(other.cell)
            at = self._beyond(other)
        return tuple(found)

    def _beyond(self, end: _End) -> _End | None:
        """Return the other side of a cell: what has the same name but for its s or m, or what is there alone."""
        others = [other for other in self._cells[end.cell] if other.outgoing != end.outgoing]
        named = [other for other in others if other.interface.lower()[1:] == end.interface.lower()[1:]]
        beside = len(self._cells[end.cell]) - len(others)
        if len(named) == 1:
            return named[0]
        return others[0] if len(others) == beside == 1 else None
