"""csim: both sets of headers, and any number of processes, give the same bits; every failure is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from quantized import golden, project

from flow.build.objects import KEEP_DAYS, Objects
from flow.emulate.csim import Csim
from flow.errors import ConfigError, ToolError
from flow.fixed.lsb import input_lsb
from flow.types import HlsProject

MLP = ("mlp", "io_parallel", 220)
CNN = ("cnn", "io_stream", 0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


def inputs(name: str, design: HlsProject) -> np.ndarray:
    return input_lsb(design.inputs[0], golden(name)[0])


def copied(design: HlsProject, out: Path) -> HlsProject:
    """Return a copy of the project that a test may change."""
    import shutil

    shutil.copytree(design.path, out)
    return HlsProject(**{**vars(design), "path": out})


# ---------------------------------------------------------------- equality


@needs("g++")
@pytest.mark.parametrize("case", [MLP, CNN], ids=["arrays", "streams"])
def test_our_headers_and_the_vendors_give_the_same_bits(
    case: tuple[str, str, int], cache: Path, tmp_path: Path
) -> None:
    design = project(*case)
    x = inputs(case[0], design)
    ours = Csim(design, tmp_path / "light", cache=cache, jobs=1)
    theirs = Csim(design, tmp_path / "vendor", header="vendor", cache=cache)
    for csim in (ours, theirs):
        csim.build()
    assert (ours.header, theirs.header) == ("light", "vendor")
    assert np.array_equal(ours.run(x), theirs.run(x))
    traced, expected = ours.trace(x), theirs.trace(x)
    assert set(traced) == set(expected) == {layer.hls_name for layer in design.layers}
    for name, values in traced.items():
        assert np.array_equal(values, expected[name]), name
        assert np.ptp(values) > 0, name


@needs("g++")
def test_several_processes_give_what_one_gives(cache: Path, tmp_path: Path) -> None:
    design = project(*CNN)
    x = inputs("cnn", design)
    one, three = (Csim(design, tmp_path / str(jobs), cache=cache, jobs=jobs) for jobs in (1, 3))
    for csim in (one, three):
        csim.build()
    assert np.array_equal(one.run(x), three.run(x))
    first, second = one.trace(x), three.trace(x)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert {path.name for path in (tmp_path / "3").glob("run*")} == {"run0", "run1", "run2"}
    assert {path.name for path in (tmp_path / "1").glob("run*")} == {"run0"}
    assert three.run(x[:1]).shape == (1, design.outputs[0].size)


def test_an_unknown_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Csim(project(*MLP), tmp_path, header="heavy")
    assert str(error.value) == "[emulate]: header must be one of light, vendor, not 'heavy'; give one of them"


def test_no_jobs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[emulate\]: jobs must be at least 1, not 0; leave it out"):
        Csim(project(*MLP), tmp_path, jobs=0)


@needs("g++")
def test_numbers_too_wide_for_our_headers_get_the_vendors(cache: Path, tmp_path: Path) -> None:
    design = copied(project(*MLP), tmp_path / "hls")
    with (design.path / "firmware" / "net.cpp").open("a", encoding="utf-8") as file:
        file.write("ap_int<200> too_wide = 1;\n")
    csim = Csim(design, tmp_path / "build", cache=cache)
    csim.build()
    assert csim.header == "vendor"
    x = inputs("mlp", design)
    same = Csim(project(*MLP), tmp_path / "same", cache=cache)
    same.build()
    assert np.array_equal(csim.run(x), same.run(x))


# ---------------------------------------------------------------- cache


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return a function that makes ``fake-g++``, a compiler with the text of a shell script, and gives its name.

    The script finds in ``$last`` the file that it is to write.
    """
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(script: str) -> str:
        path = tmp_path / "fake-g++"
        path.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo fake 1.0 && exit\nfor last; do :; done\n{script}\n'
        )
        path.chmod(0o755)
        return path.name

    return make


def counting(compiler: Callable[[str], str], tmp_path: Path) -> tuple[str, Callable[[], list[str]]]:
    """Return a real compiler and a function that gives what it wrote since the last call."""
    log = tmp_path / "written"
    name = compiler(f'basename "$last" >> {log}\nexec g++ "$@"')

    def written() -> list[str]:
        names = sorted(log.read_text().split())
        log.unlink()
        return names

    return name, written


@needs("g++")
def test_only_what_changed_is_compiled_and_what_is_broken_is_made_again_with_a_word(
    compiler: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, written = counting(compiler, tmp_path)
    objects = tmp_path / "objects"

    def build(design: HlsProject) -> list[str]:
        csim = Csim(design, tmp_path / "build", name, cache=objects)
        csim.build()
        assert np.array_equal(csim.run(x), expected)
        return written()

    design = copied(project(*MLP), tmp_path / "hls")
    x = inputs("mlp", design)
    first = Csim(design, tmp_path / "build", name, cache=objects)
    first.build()
    expected = first.run(x)
    everything = ["csim", "csim.h.gch", "csim.o", "net.o", "testbench.o"]
    assert written() == everything
    assert build(design) == ["csim"]

    network = design.path / "firmware" / "net.cpp"
    network.write_text(network.read_text() + "\n// another design\n")
    assert build(design) == ["csim", "net.o"]

    for cut in objects.rglob("testbench.o"):  # cut off
        cut.write_bytes(cut.read_bytes()[:1000])
    assert build(design) == ["csim", "testbench.o"]

    for name_made in ("testbench.o", "csim.o", "csim.h.gch", "csim.h"):
        for broken in objects.rglob(name_made):  # as long, and another
            content = bytearray(broken.read_bytes())
            content[len(content) // 2] ^= 1
            broken.write_bytes(content)
        caplog.clear()
        again = {"testbench.o", "csim.o"} & {name_made} or {"csim.h.gch"}
        assert build(design) == sorted(["csim", *again])
        (told,) = {record.getMessage() for record in caplog.records}
        entry = next(objects.rglob(min(again)))
        assert told == f"cache: {entry} was altered, or is not whole; it is made anew"


def test_entries_that_nobody_used_go(tmp_path: Path) -> None:
    objects = Objects(tmp_path)

    def make(path: Path) -> None:
        path.write_text(path.name)

    for key in ("old", "used"):
        assert objects.get(key, "a.o", make).read_text() == "a.o"
    long_ago = objects.path("old", "a.o").stat().st_mtime - (KEEP_DAYS + 1) * 86400
    for key in ("old", "used"):
        os.utime(tmp_path / key, (long_ago, long_ago))
    objects.get("used", "a.o", lambda path: pytest.fail("it is there"))
    objects.get("new", "a.o", make)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]


def test_a_file_that_was_not_made_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise ToolError("no")

    with pytest.raises(ToolError):
        Objects(tmp_path).get("key", "a.o", fail)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- compilers that fail


def failure(tmp_path: Path, compiler: str, timeout_s: float = 1800) -> str:
    def build_and_run() -> None:
        csim = Csim(
            project(*MLP),
            tmp_path / "build",
            compiler,
            cache=tmp_path / "objects",
            jobs=1,
            timeout_s=timeout_s,
        )
        csim.build()
        csim.run(np.zeros((3, 5), dtype=np.int64))

    with pytest.raises(ToolError) as error:
        build_and_run()
    return str(error.value)


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    assert failure(tmp_path, "no-such-g++") == (
        "emulate: 'no-such-g++' must be on PATH, not missing; install it (flow doctor shows what was found)"
    )


def test_the_first_messages_of_a_compiler_that_fails_are_shown(
    compiler: Callable[[str], str], tmp_path: Path
) -> None:
    fake = compiler(
        "echo In file included from x:\nfor n in 1 2 3; do echo net.cpp:$n:1: error: narrow; done\nexit 1"
    )
    assert failure(tmp_path, fake) == (
        "emulate: 'fake-g++' must exit with 0, not 1; correct the C++, or try [emulate] header = \"vendor\"; "
        "its first messages are\n    net.cpp:1:1: error: narrow\n    net.cpp:2:1: error: narrow\n"
        "    net.cpp:3:1: error: narrow"
    )


def test_long_messages_say_where_the_rest_is(compiler: Callable[[str], str], tmp_path: Path) -> None:
    fake = compiler("for n in 1 2 3 4 5 6 7 8 9; do echo net.cpp:$n:1: error: narrow; done\nexit 1")
    text = failure(tmp_path, fake)
    assert text.endswith(
        f"net.cpp:8:1: error: narrow; all of them are in {tmp_path / 'build' / 'csim.h.log'}"
    )


@pytest.mark.parametrize(
    "script",
    [
        "echo 'cc1plus: out of memory allocating 65536 bytes after a total of 4096 bytes'; exit 1",
        "echo 'virtual memory exhausted: Cannot allocate memory'; exit 1",
        "echo 'g++: fatal error: Killed signal terminated program cc1plus'; exit 1",
        "kill -KILL $$",
    ],
    ids=["out of memory", "exhausted", "cc1plus is killed", "g++ is killed"],
)
def test_a_compiler_without_memory_is_told_from_one_that_fails(
    script: str, compiler: Callable[[str], str], tmp_path: Path
) -> None:
    assert failure(tmp_path, compiler(script)) == (
        "emulate: 'fake-g++' must have enough memory, not be ended for lack of it; compile with [emulate] jobs = 1, "
        f"or on a machine with more (its messages are in {tmp_path / 'build' / 'csim.h.log'})"
    )


def test_a_compiler_that_hangs_is_ended(compiler: Callable[[str], str], tmp_path: Path) -> None:
    assert failure(tmp_path, compiler("exec sleep 60"), timeout_s=1) == (
        f"emulate: 'fake-g++' must end within 1 s, not run on; its output is in {tmp_path / 'build' / 'csim.h.log'}"
    )


def test_a_compiler_that_writes_nothing_is_named(compiler: Callable[[str], str], tmp_path: Path) -> None:
    text = failure(tmp_path, compiler("exit 0"))
    assert text.startswith("emulate: 'fake-g++' must leave csim.h.gch, not end without it; see ")


@needs("g++")
def test_an_error_in_the_cpp_is_shown(cache: Path, tmp_path: Path) -> None:
    design = copied(project(*MLP), tmp_path / "hls")
    path = design.path / "firmware" / "net.cpp"
    path.write_text("#error broken on purpose\n" + path.read_text())
    with pytest.raises(ToolError) as error:
        Csim(design, tmp_path / "build", cache=cache).build()
    assert str(error.value).startswith("emulate: 'g++' must exit with 0, not 1; correct the C++, or try ")
    assert f"{path}:1:2: error: #error broken on purpose" in str(error.value)


# ---------------------------------------------------------------- programs that fail


def linking_makes(csim: str) -> str:
    """Return the script of a compiler whose linked program is the shell script ``csim``."""
    return f'printf \'#!/bin/sh\\n{csim}\\n\' > "$last"\nchmod +x "$last"'


def test_a_program_that_dies_is_told_with_its_signal(compiler: Callable[[str], str], tmp_path: Path) -> None:
    fake = compiler(linking_makes("echo layer 3; kill -SEGV $$"))
    assert failure(tmp_path, fake) == (
        f"emulate: '{tmp_path / 'build' / 'csim'}' must exit with 0, not -11; its output ends with\n    layer 3"
    )


def test_a_program_that_writes_nothing_is_refused(compiler: Callable[[str], str], tmp_path: Path) -> None:
    build = tmp_path / "build"
    assert failure(tmp_path, compiler(linking_makes("exit 0"))) == (
        f"emulate: '{build / 'csim'}' must leave outputs.bin, not end without it; see {build / 'run0' / 'csim.log'}"
    )


def short(file: Path, due: str, told: str) -> str:
    return (
        f"emulate: the C++ must write {due} of 8 bytes to {str(file)!r}, not {told}; see csim.log beside it, or report "
        "the network"
    )


@pytest.mark.parametrize("size", [0, 8, 71, 73, 80])
def test_a_program_that_writes_too_little_or_too_much_is_refused(
    compiler: Callable[[str], str], tmp_path: Path, size: int
) -> None:
    fake = compiler(linking_makes(f"head -c {size} /dev/zero > outputs.bin"))
    file = tmp_path / "build" / "run0" / "outputs.bin"
    assert project(*MLP).outputs[0].size == 3  # three samples make 72 bytes
    assert failure(tmp_path, fake) == short(file, "9 values", f"{size} bytes")


def test_results_of_an_earlier_run_are_not_taken(compiler: Callable[[str], str], tmp_path: Path) -> None:
    once = "test -e ../once || head -c 72 /dev/zero > outputs.bin; touch ../once"
    csim = Csim(project(*MLP), tmp_path / "build", compiler(linking_makes(once)), cache=tmp_path / "objects")
    csim.build()
    assert not csim.run(np.zeros((3, 5), dtype=np.int64)).any()
    with pytest.raises(ToolError, match=r"must leave outputs.bin, not end without it"):
        csim.run(np.zeros((3, 5), dtype=np.int64))


@pytest.mark.parametrize(
    ("size", "told"), [(None, "nothing"), (0, "0 bytes"), (8, "8 bytes"), (25, "25 bytes")]
)
def test_layers_that_are_missing_or_short_are_refused(
    compiler: Callable[[str], str], tmp_path: Path, size: int | None, told: str
) -> None:
    names = [layer.hls_name for layer in project(*MLP).layers]
    lines = [f"head -c 48 /dev/zero > layers/{name}.f64" for name in names[:-1]]
    lines += [] if size is None else [f"head -c {size} /dev/zero > layers/{names[-1]}.f64"]
    program = "; ".join(["touch outputs.bin", *lines])
    csim = Csim(
        project(*MLP), tmp_path / "build", compiler(linking_makes(program)), cache=tmp_path / "objects"
    )
    csim.build()
    with pytest.raises(ToolError) as error:
        csim.trace(np.zeros((3, 5), dtype=np.int64))
    file = tmp_path / "build" / "run0" / "layers" / f"{names[-1]}.f64"
    assert str(error.value) == short(file, "values for every sample", told)


def test_a_program_that_hangs_is_ended(compiler: Callable[[str], str], tmp_path: Path) -> None:
    build = tmp_path / "build"
    assert failure(tmp_path, compiler(linking_makes("exec sleep 60")), timeout_s=1) == (
        f"emulate: '{build / 'csim'}' must end within 1 s, not run on; its output is in {build / 'run0' / 'csim.log'}"
    )


def test_a_program_that_is_not_built_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as error:
        Csim(project(*MLP), tmp_path).run(np.zeros((1, 5), dtype=np.int64))
    assert str(error.value) == "emulate: the C++ must be built before it runs; call build() first"


@needs("g++")
def test_weights_that_are_missing_or_too_few_are_named(cache: Path, tmp_path: Path) -> None:
    design = copied(project(*MLP), tmp_path / "hls")
    csim = Csim(design, tmp_path / "build", cache=cache)
    csim.build()
    path = sorted((design.path / "firmware" / "weights").glob("w*.txt"))[0]
    text = path.read_text()
    count = text.count(",") + 1
    path.write_text(text[: text.rindex(",")])
    with pytest.raises(ToolError) as error:
        csim.run(np.zeros((1, 5), dtype=np.int64))
    assert f"csim: weights/{path.name} must hold {count} numbers, not {count - 1}" in str(error.value)
    path.unlink()
    with pytest.raises(ToolError) as error:
        csim.run(np.zeros((1, 5), dtype=np.int64))
    assert f"csim: weights/{path.name} must be readable, not missing" in str(error.value)


def test_a_folder_that_is_used_again_gets_the_weights_of_the_new_design(
    compiler: Callable[[str], str], tmp_path: Path
) -> None:
    fake = compiler(linking_makes("exit 0"))
    for design in (project(*MLP), project("mlp", "io_stream")):
        Csim(design, tmp_path / "build", compiler=fake, cache=tmp_path / "objects").build()
        assert (tmp_path / "build" / "weights").resolve() == design.path.resolve() / "firmware" / "weights"
