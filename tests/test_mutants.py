"""Every reader, given inputs that are damaged, foreign or made to do harm: only the flow's own errors come out."""

from collections.abc import Callable
from pathlib import Path

import mutants
import pytest

COUNT = {"onnx": 60, "qonnx": 40}
READERS = (
    *(
        "npz",
        "state dict",
        "resume file",
        "flow.toml",
        "boards/*.toml",
        "onnx",
        "qonnx",
        "weights.nnc",
        "bit",
    ),
    *("bit on the board", "hwh", "csynth.xml", "utilization.rpt", "timing.rpt", "power.rpt", "csynth.rpt"),
    *(
        "clock.rpt",
        "csynth modules",
        "csynth modules of Vivado HLS",
        "csynth summary",
        "nextpnr report",
        "vendor log",
        "host archive",
    ),
    *("board answer", "link.json", "golden.npz", "golden.npz of a serial board", "golden.npz on the board"),
    *("board manifest", "network.json", "weights.pt", "ratchet"),
)

MAY_BE_MISSING = {name for name in READERS if name.startswith(("csynth ", "csynth.rpt", "weights.nnc"))}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, mutants.Reader]:
    found = {reader.name: reader for reader in mutants.readers(tmp_path_factory.mktemp("whole"))}
    assert set(READERS) - set(found) <= MAY_BE_MISSING
    assert set(found) <= set(READERS)
    return found


@pytest.fixture
def reader(readers: dict[str, mutants.Reader]) -> Callable[[str], mutants.Reader]:
    def named(name: str) -> mutants.Reader:
        if name not in readers:
            pytest.skip("nncodec is not installed, or the vendor's files are not there (FLOW_SHARED)")
        return readers[name]

    return named


@pytest.mark.parametrize("name", READERS)
def test_whole_inputs_are_read(name: str, reader: Callable[[str], mutants.Reader], tmp_path: Path) -> None:
    for whole in reader(name).wholes:
        reader(name).read(tmp_path / "in", whole)


@pytest.mark.parametrize("name", READERS)
def test_spoilt_inputs_give_the_flows_own_errors(
    name: str, reader: Callable[[str], mutants.Reader], tmp_path: Path
) -> None:
    mutants.run(reader(name), COUNT.get(name, 200), 0, tmp_path)
