"""Build plans: files, commands in order, logs; whatever goes wrong with a program is told."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.build import plan
from flow.errors import ConfigError, ToolError
from flow.types import Command, Plan


def shell(script: str, log: str = "out.log") -> Command:
    return Command(("sh", "-c", script), log)


def refusal(build: Plan, where: Path, **options: object) -> str:
    with pytest.raises(ToolError) as error:
        plan.run(build, where, subject="build", **options)  # type: ignore[arg-type]
    return str(error.value)


def program(where: Path, name: str, text: str) -> Path:
    path = where / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def gone(pid: int) -> bool:
    """Wait up to 5 seconds for a process to end; one that nobody has fetched yet has ended, too."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


# ---------------------------------------------------------------- what is done


def test_files_are_written_commands_run_in_order_and_products_returned(tmp_path: Path) -> None:
    files = {"a.txt": "first\n", "deep/er/b.tcl": "größe\n"}
    commands = (
        shell("cat a.txt > c.txt", "1.log"),
        shell("cat deep/er/b.tcl >> c.txt; echo done", "logs/2.log"),
    )
    products = plan.run(Plan(files, commands, ("c.txt", "a.txt")), tmp_path, subject="build")
    assert products == (tmp_path / "c.txt", tmp_path / "a.txt")
    assert (tmp_path / "c.txt").read_text(encoding="utf-8") == "first\ngröße\n"
    assert (tmp_path / "1.log").read_text() == ""
    assert (tmp_path / "logs" / "2.log").read_text() == "done\n"


def test_files_can_be_written_without_running_anything(tmp_path: Path) -> None:
    plan.write(Plan({"x/y.sh": "echo\n"}, (shell("touch ran"),), ("z",)), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "y.sh"]
    assert (tmp_path / "x" / "y.sh").read_text() == "echo\n"


@pytest.mark.parametrize(
    "argument",
    [
        "a b",
        "$(touch ran)",
        "`touch ran`",
        "; touch ran",
        "&& touch ran",
        "| touch ran",
        "*",
        "~",
        "'",
        '"',
        "\n",
        "$HOME",
        "",
        "größe",
    ],
)
def test_no_shell_reads_the_arguments(argument: str, tmp_path: Path) -> None:
    code = "import sys; open('said', 'w', encoding='utf-8').write(repr(sys.argv[1:]))"
    plan.run(
        Plan({}, (Command((sys.executable, "-c", code, argument), "x.log"),), ("said",)),
        tmp_path,
        subject="build",
    )
    assert (tmp_path / "said").read_text(encoding="utf-8") == repr([argument])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said", "x.log"]


def test_folders_with_odd_names_are_folders(tmp_path: Path) -> None:
    where = tmp_path / "a b $(touch ran); 'c'"
    where.mkdir()
    assert plan.run(Plan({}, (shell("pwd > here"),), ("here",)), where, subject="build") == (where / "here",)
    assert (where / "here").read_text() == f"{where}\n"
    assert list(tmp_path.iterdir()) == [where]


def test_every_line_is_handed_on_and_logged_from_both_streams(tmp_path: Path) -> None:
    lines: list[str] = []
    plan.run(
        Plan({}, (shell("echo one; echo two >&2; printf three"),), ()),
        tmp_path,
        subject="build",
        on_line=lines.append,
    )
    assert lines == ["one", "two", "three"]
    assert (tmp_path / "out.log").read_text() == "one\ntwo\nthree"


def test_lines_come_while_the_program_runs(tmp_path: Path) -> None:
    def answer(line: str) -> None:
        (tmp_path / "answer").write_text(line)

    waits = "echo ask; for i in $(seq 100); do [ -f answer ] && exit 0; sleep 0.1; done; exit 1"
    plan.run(Plan({}, (shell(waits),), ("answer",)), tmp_path, subject="build", on_line=answer)


def test_output_that_is_not_utf8_is_no_failure(tmp_path: Path) -> None:
    lines: list[str] = []
    plan.run(Plan({}, (shell(r"printf 'caf\351\n'"),), ()), tmp_path, subject="build", on_line=lines.append)
    assert lines == ["caf�"]


def test_variables_are_added_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    lines: list[str] = []
    plan.run(
        Plan({}, (shell("echo $KEPT $ADDED"),), ()),
        tmp_path,
        subject="build",
        env={"ADDED": "added"},
        on_line=lines.append,
    )
    assert lines == ["kept added"]
    assert "ADDED" not in os.environ


def test_a_program_that_asks_gets_no_answer(tmp_path: Path) -> None:
    plan.run(Plan({}, (shell("read answer || echo nobody > said"),), ("said",)), tmp_path, subject="build")


# ---------------------------------------------------------------- the digest

COMMANDS = st.builds(Command, st.lists(st.text(), min_size=1, max_size=3).map(tuple), st.text(), st.text())
PLANS = st.builds(
    Plan,
    st.dictionaries(st.text(), st.text(), max_size=4),
    st.lists(COMMANDS, max_size=3).map(tuple),
    st.lists(st.text(), max_size=3).map(tuple),
)


@given(PLANS, PLANS)
def test_plans_have_one_digest_exactly_when_they_are_equal(one: Plan, other: Plan) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(PLANS)
def test_the_digest_knows_no_order_of_files_and_no_kind_of_mapping(one: Plan) -> None:
    turned = MappingProxyType(dict(reversed(one.files.items())))
    assert dataclasses.replace(one, files=turned).digest == one.digest


FIRST = Plan({"a": "x"}, (Command(("p", "q"), "1.log"), Command(("r",), "2.log")), ("s", "t"))


@pytest.mark.parametrize(
    "changed",
    [
        {"files": {"a": "y"}},
        {"files": {"b": "x"}},
        {"files": {"a": "x", "b": ""}},
        {"commands": FIRST.commands[::-1]},
        {"commands": FIRST.commands[:1]},
        {"commands": (Command(("p", "q"), "1.log", "name"), FIRST.commands[1])},
        {"commands": (Command(("p", "q"), "3.log"), FIRST.commands[1])},
        {"commands": (Command(("p q",), "1.log"), FIRST.commands[1])},
        {"products": ("t", "s")},
        {"products": ("s",)},
    ],
    ids=str,
)
def test_whatever_is_changed_changes_the_digest(changed: dict[str, object]) -> None:
    assert dataclasses.replace(FIRST, **changed).digest != FIRST.digest  # type: ignore[arg-type]


def test_the_digest_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert FIRST.digest == "8155c0bc666e7f7f0fe6c7b2825d9025e953370162a54991286a204d18917c9f"


# ---------------------------------------------------------------- the archive


def unpacked(build: Plan, where: Path) -> Path:
    """Return the folder that the plan's archive was unpacked into."""
    plan.archive(build, where / "plan.tar")
    folder = where / "a b"
    with tarfile.open(where / "plan.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the archive's script from another folder."""
    script = ("sh", str(folder / "build.sh"))
    return subprocess.run(script, cwd=folder.parent, capture_output=True, text=True, check=False)


def test_the_archive_builds_elsewhere_what_the_plan_builds_here(tmp_path: Path) -> None:
    commands = (
        shell("cat 'größe/a b.txt' > c; echo one; echo two >&2", "logs/deep/1.log"),
        Command((sys.executable, "-c", "import sys; print(sys.argv[1:])", "$HOME", "'", "\n", ""), "2.log"),
        shell("cat >> c; cat 2.log >> c", "3.log"),
    )
    build = Plan({"größe/a b.txt": "Überall\n"}, commands, ("c",))
    here = tmp_path / "here"
    here.mkdir()
    plan.run(build, here, subject="build")
    folder = unpacked(build, tmp_path)
    done = built(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("c", "logs/deep/1.log", "2.log", "3.log"):
        assert (folder / name).read_bytes() == (here / name).read_bytes()


def test_the_archive_is_the_same_bytes_for_the_same_plan(tmp_path: Path) -> None:
    one, other = tmp_path / "1.tar", tmp_path / "2.tar"
    files = {"b": "2\n", "a": "1\n", "build/x": ""}
    plan.archive(Plan(files, (shell("true"),), ()), one)
    plan.archive(Plan(dict(reversed(files.items())), (shell("true"),), ()), other)
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as tar:
        members = [(member.name, member.mode, member.mtime, member.uid, member.uname) for member in tar]
    assert members == [
        ("a", 0o644, 0, 0, ""),
        ("b", 0o644, 0, 0, ""),
        ("build.sh", 0o755, 0, 0, ""),
        ("build/x", 0o644, 0, 0, ""),
    ]
    plan.archive(Plan(files, (shell("false"),), ()), other)
    assert one.read_bytes() != other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tar", "2.tar"]


def test_a_plan_that_brings_its_own_script_keeps_it(tmp_path: Path) -> None:
    folder = unpacked(Plan({"build.sh": "echo by hand\n"}, (shell("false"),), ()), tmp_path)
    assert built(folder).stdout == "by hand\n"


def test_the_script_stops_at_the_first_command_that_fails(tmp_path: Path) -> None:
    commands = (shell("echo why; exit 7", "logs/1.log"), shell("touch ran", "2.log"))
    folder = unpacked(Plan({}, commands, ()), tmp_path)
    done = built(folder)
    assert (done.returncode, done.stderr) == (7, "build: 'sh' must exit with 0, not 7; see logs/1.log\n")
    assert (folder / "logs" / "1.log").read_text() == "why\n"
    assert not (folder / "ran").exists()


def test_the_script_fails_where_a_product_is_missing(tmp_path: Path) -> None:
    done = built(unpacked(Plan({}, (shell("touch a"),), ("a", "b.bit")), tmp_path))
    text = "build: the commands must leave b.bit, not end without it; see their logs\n"
    assert (done.returncode, done.stderr) == (1, text)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", ".", "", "a//b", "./a", "a/", "..\\x"])
@pytest.mark.parametrize("of", ["file", "log", "product"])
def test_a_name_that_leads_outside_is_refused(name: str, of: str, tmp_path: Path) -> None:
    build = {
        "file": Plan({name: ""}, (), ()),
        "log": Plan({}, (shell("true", name),), ()),
        "product": Plan({}, (), (name,)),
    }[of]
    with pytest.raises(ConfigError) as error:
        plan.archive(build, tmp_path / "plan.tar")
    assert str(error.value) == (
        f"archive: a plan's names must be plain paths inside its folder, not {name!r}; name it from there"
    )
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("no-such-program", "install it"),
        ("vitis_hls", "source Vitis HLS' settings64.sh"),
        ("vivado", "source Vivado's settings64.sh"),
        ("g++", "install it (Debian: apt install g++)"),
    ],
)
def test_a_missing_program_is_named_before_anything_happens(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program(bin_folder, "there", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(bin_folder))
    out = tmp_path / "out"
    out.mkdir()
    build = Plan(
        {"a.txt": ""},
        (Command(("there",), "1.log"), Command((name,), "2.log"), Command((name,), "3.log")),
        (),
    )
    assert refusal(build, out) == (
        f"build: {name!r} must be on PATH, not missing; {hint} (flow doctor shows what was found)"
    )
    assert list(out.iterdir()) == []
    assert plan.missing(build) == (name,)


def test_a_file_that_is_no_program_is_told(tmp_path: Path) -> None:
    path = program(tmp_path, "broken", "\x7fELF but not really")
    assert refusal(Plan({}, (Command((str(path),), "x.log"),), ()), tmp_path) == (
        f"build: {str(path)!r} must start, not fail with 'Exec format error'; install it anew"
    )


def test_a_status_that_is_not_zero_is_told_with_the_end_of_the_output(tmp_path: Path) -> None:
    script = "for i in $(seq 40); do echo line $i; done; echo broken >&2; exit 3"
    shown = "\n".join(f"    {line}" for line in [*(f"line {i}" for i in range(12, 41)), "broken"])
    after = shell("touch ran")
    assert refusal(Plan({}, (shell(script), after), ()), tmp_path) == (
        f"build: 'sh' must exit with 0, not 3; its output ends with\n{shown}"
    )
    assert (tmp_path / "out.log").read_text().count("\n") == 41
    assert not (tmp_path / "ran").exists()


def test_a_signal_is_told(tmp_path: Path) -> None:
    assert refusal(Plan({}, (shell("echo here; kill -9 $$"),), ()), tmp_path) == (
        "build: 'sh' must exit with 0, not -9; its output ends with\n    here"
    )


def test_a_missing_product_is_told(tmp_path: Path) -> None:
    build = Plan({}, (shell("touch a"), shell("true", "second.log")), ("a", "deep/b.bit"))
    assert refusal(build, tmp_path) == (
        f"build: 'sh' must leave b.bit, not end without it; see {tmp_path / 'second.log'}"
    )


def test_a_program_past_its_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = (
        "sleep 61 & echo $! > child; (trap '' TERM HUP; sleep 62) & echo $! > stubborn; echo $$ > self; wait"
    )
    start = time.monotonic()
    text = refusal(Plan({}, (shell(script),), ()), tmp_path, timeout_s=1.5)
    assert time.monotonic() - start < 30
    assert text == f"build: 'sh' must end within 1.5 s, not run on; its output is in {tmp_path / 'out.log'}"
    for name in ("self", "child", "stubborn"):
        assert gone(int((tmp_path / name).read_text())), name


def test_a_child_that_outlives_its_parent_is_ended_at_the_limit(tmp_path: Path) -> None:
    text = refusal(Plan({}, (shell("sleep 63 & echo $! > child"),), ()), tmp_path, timeout_s=1)
    assert text == f"build: 'sh' must end within 1 s, not run on; its output is in {tmp_path / 'out.log'}"
    assert gone(int((tmp_path / "child").read_text()))


def test_the_limit_is_for_each_command_and_leaves_quick_ones_alone(tmp_path: Path) -> None:
    plan.run(
        Plan({}, tuple(shell("sleep 0.4") for _ in range(3)), ()), tmp_path, subject="build", timeout_s=1
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_runs_on_when_the_caller_gives_up(error: type[BaseException], tmp_path: Path) -> None:
    def give_up(line: str) -> None:
        raise error

    script = "sleep 64 & echo $! > child; echo $$ > self; echo ready; wait"
    with pytest.raises(error):
        plan.run(Plan({}, (shell(script),), ()), tmp_path, subject="build", on_line=give_up)
    for name in ("self", "child"):
        assert gone(int((tmp_path / name).read_text())), name


# ---------------------------------------------------------------- one program, byte for byte


EVERY_BYTE = bytes(range(256)) * 1000


def test_bytes_and_files_go_in_and_come_out_as_they_are(tmp_path: Path) -> None:
    source, result = tmp_path / "source", tmp_path / "result"
    source.write_bytes(EVERY_BYTE)
    for stdin in (source, EVERY_BYTE):
        lines: list[bytes] = []
        assert plan.pipe(("cat",), subject="build", stdin=stdin, output=result) == plan.Ended(0, (), False)
        plan.pipe(("cat",), subject="build", stdin=stdin, on_line=lines.append)
        assert result.read_bytes() == b"".join(lines) == EVERY_BYTE
        assert len(lines) == EVERY_BYTE.count(b"\n") + 1


def test_a_piped_program_that_asks_gets_no_answer() -> None:
    assert plan.pipe(("sh", "-c", "read answer"), subject="build").status == 1


def test_the_status_and_the_end_of_the_errors_are_the_callers_to_judge() -> None:
    script = "echo out; for i in $(seq 40); do echo line $i >&2; done; exit 3"
    expected = plan.Ended(3, tuple(f"line {i}" for i in range(11, 41)), False)
    assert plan.pipe(("sh", "-c", script), subject="build") == expected
    assert plan.pipe(("sh", "-c", "kill -9 $$"), subject="build") == plan.Ended(-9, (), False)


def test_a_piped_program_past_its_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 65 & echo $! > {tmp_path / 'child'}; wait"
    for output in (None, tmp_path / "out"):
        done = plan.pipe(("sh", "-c", script), subject="build", output=output, timeout_s=0.7)
        assert (done.status, done.expired) == (-9, True)
        assert gone(int((tmp_path / "child").read_text()))


def test_a_piped_program_ends_when_the_caller_gives_up(tmp_path: Path) -> None:
    def give_up(line: bytes) -> None:
        raise KeyboardInterrupt

    script = f"echo $$ > {tmp_path / 'self'}; echo ready; sleep 66"
    with pytest.raises(KeyboardInterrupt):
        plan.pipe(("sh", "-c", script), subject="build", on_line=give_up)
    assert gone(int((tmp_path / "self").read_text()))


def test_a_piped_program_that_is_missing_is_told() -> None:
    with pytest.raises(ToolError) as error:
        plan.pipe(("no-such-program",), subject="build")
    assert str(error.value) == (
        "build: 'no-such-program' must be on PATH, not missing; install it (flow doctor shows what was found)"
    )


# ---------------------------------------------------------------- programs


def test_programs_are_looked_up_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "tool", "#!/bin/sh\necho\necho '  tool 1.2.3 '\necho more\n")
    (tmp_path / "not-executable").write_text("")
    assert plan.find("tool") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plan.find("tool") == path
    assert plan.find("not-executable") is None
    assert plan.program_version("tool") == "tool 1.2.3"
    assert plan.program_version("absent") is None


@pytest.mark.parametrize(
    ("name", "option"), [("g++", "--version"), ("vivado", "-version"), ("vitis_hls", "-version")]
)
def test_each_program_is_asked_for_its_version_in_its_own_way(
    name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, name, "#!/bin/sh\necho asked with $*\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plan.program_version(name) == f"asked with {option}"


def test_a_version_that_cannot_be_had_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "broken", "\x7fELF but not really")
    program(tmp_path, "mute", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (plan.program_version("broken"), plan.program_version("mute")) == (None, None)


def test_a_required_program_is_there_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "there", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    plan.require("there", "build")
    with pytest.raises(ToolError) as error:
        plan.require("absent", "build")
    assert str(error.value) == (
        "build: 'absent' must be on PATH, not missing; install it (flow doctor shows what was found)"
    )
