"""Another host: a real sshd on this machine; builds outlive their connection, results come back whole."""

from __future__ import annotations

import ast
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import Server, needs_sshd, serving

from flow.build import remote
from flow.build.remote import Host
from flow.errors import ConfigError, ToolError
from flow.types import Command, Plan

KEY = "0123456789abcdef"
ALL_BYTES = bytes(range(256)) * 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "server") as running:
        yield running


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def over_ssh(test: Callable[..., None]) -> Callable[..., None]:
    return needs_sshd(test)


def shell(script: str, log: str = "logs/1.log", name: str = "") -> Command:
    return Command(("sh", "-c", script), log, name)


def build(*scripts: str, products: tuple[str, ...] = ()) -> Plan:
    commands = tuple(shell(script, f"logs/{index}.log") for index, script in enumerate(scripts))
    return Plan({}, commands, products)


def run(plan: Plan, out: Path, server: Server, **options: object) -> tuple[Path, ...]:
    settings: dict[str, object] = {"subject": "build", "key": KEY, "retry_s": (0.1,), **options}
    return remote.run(plan, out, server.host(), **settings)  # type: ignore[arg-type]


def refusal(plan: Plan, out: Path, server: Server, **options: object) -> str:
    with pytest.raises(ToolError) as error:
        run(plan, out, server, **options)
    return str(error.value)


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.025)
    raise AssertionError("it must happen within 10 s")


COUNT = "echo ran >> ../../../ran; "  # in the home, beside builds/<key>/work


def times_run(server: Server) -> int:
    return (server.home / "ran").read_text().count("ran")


def until(name: str) -> str:
    """Return a piece of script that waits, some 20 seconds at most, for a file in the home."""
    return f"for i in $(seq 200); do [ -e ../../../{name} ] && break; sleep 0.1; done; "


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    ["board", "user@workstation", "a_b.c-d.example", "root@10.0.0.1", "::1", "user@fe80::1:2", "2001:db8::7"],
)
def test_names_of_hosts_are_taken(name: str) -> None:
    remote.check(Host(name), "build")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "-oProxyCommand=x",
            "a b",
            "",
            "user@",
            "@host",
            "user@-x",
            "-u@host",
            "host:22",
            "host\n",
            "a;b",
            "%h",
        ),
        *("ssh://host", "größe", "a'b", "host/x", "a@b@c", ":", "\x00", "$(touch ran)"),
    ],
)
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        remote.call(Host(name), "true", subject="build", timeout_s=5)
    assert str(error.value) == (
        f"build: host must be a name such as user@workstation, not {name!r}; "
        "a port or a proxy belongs into ssh's config"
    )


@pytest.mark.parametrize("path", ["", "/", "~/work", "~user", "-rf", "a\nb", "a\x1bb"])
@pytest.mark.parametrize("what", ["folder", "setup"])
def test_what_is_no_path_is_refused(what: str, path: str) -> None:
    with pytest.raises(ConfigError) as error:
        remote.check(Host("board", **{what: path}), "build")  # type: ignore[arg-type]
    assert str(error.value) == (
        f"build: {what} must be a path on the host, absolute or relative to the home there, not {path!r}; "
        "write it without ~"
    )


def test_a_config_of_ssh_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        remote.check(Host("board", tmp_path / "config"), "build")
    assert str(error.value) == (
        f"build: ssh_config must be a file, not {str(tmp_path / 'config')!r}; leave it out to take ssh's own"
    )


@pytest.mark.parametrize("key", ["", "..", "ABCDEF01", "0123", "0123456/", "0123456789\n"])
def test_a_key_that_is_no_digest_is_refused(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        remote.remove(Host("board"), key)
    assert str(error.value) == f"remove: key must be a hexadecimal digest, not {key!r}; take a SHA-256"


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as error:
        remote.call(Host("board"), "true", subject="build", timeout_s=5)
    assert str(error.value) == (
        "build: 'ssh' must be on PATH, not missing; install it (Debian: apt install openssh-client) "
        "(flow doctor shows what was found)"
    )


# ---------------------------------------------------------------- scripts


@over_ssh
def test_a_script_reads_and_prints_bytes(server: Server, tmp_path: Path) -> None:
    source, result = tmp_path / "source", tmp_path / "result"
    source.write_bytes(ALL_BYTES)
    host = server.host()
    told = remote.call(host, "cat", subject="build", timeout_s=20, stdin=source, output=result)
    assert (told, result.read_bytes()) == ("", ALL_BYTES)
    lines: list[str] = []
    script = """echo "it's" $(pwd); cat; printf '$HOME\\t"'"""
    text = remote.call(host, script, subject="build", timeout_s=20, stdin=b"a\nb\n", on_line=lines.append)
    assert text == f"it's {server.home}\na\nb\n$HOME\t\""
    assert lines == text.splitlines()


@over_ssh
@pytest.mark.parametrize("status", [3, 255])
def test_a_status_is_the_scripts_own(status: int, server: Server) -> None:
    script = f"echo one; echo two; echo three >&2; exit {status}"
    with pytest.raises(remote.RemoteFailure) as error:
        remote.call(server.host(), script, subject="build", timeout_s=20)
    assert str(error.value) == (
        f"build: what runs on 'workstation' must exit with 0, not {status}; its output ends with\n"
        "    one\n    two\n    three"
    )
    assert (error.value.status, error.value.output, error.value.errors) == (status, "one\ntwo", "three")


@over_ssh
def test_a_script_past_its_time_is_told(server: Server) -> None:
    with pytest.raises(ToolError) as error:
        remote.call(server.host(), "sleep 5", subject="build", timeout_s=1)
    assert str(error.value) == (
        "build: what runs on 'workstation' must end within 1 s, not run on; "
        "try it there by hand, or allow more time"
    )


@over_ssh
def test_the_setup_is_sourced_by_bash_and_what_it_prints_is_dropped(server: Server) -> None:
    (server.home / "more.sh").write_text("export MORE=more\n")
    (server.home / "set up.sh").write_text(
        "echo words; read line; source ~/more.sh; export PATH=~/tools:$PATH; cd /; false\n"
    )
    (server.home / "tools").mkdir()
    server.program("../home/tools/vivado", 'echo "vivado v2025.1 $MORE"')
    host = server.host(setup="set up.sh")
    text = remote.call(host, "cat; vivado", subject="build", timeout_s=20, stdin=b"kept\n")
    assert text == "kept\nvivado v2025.1 more\n"


@over_ssh
def test_a_setup_that_is_not_there_is_told(server: Server) -> None:
    with pytest.raises(ConfigError) as error:
        remote.call(server.host(setup="/opt/none.sh"), "true", subject="build", timeout_s=20)
    assert str(error.value) == (
        "build: setup must be a readable file on 'workstation', not '/opt/none.sh'; give its path there"
    )


@over_ssh
def test_programs_say_their_versions(server: Server) -> None:
    server.program("vivado", 'echo >&2 warning; echo; echo "  vivado asked with $* "; echo more')
    server.program("speaks-up", "cat; echo >&2 speaks-up $*")
    server.program("mute", "exit 1")
    programs = ("vivado", "absent", "speaks-up", "mute")
    assert remote.versions(server.host(), programs, subject="doctor") == {
        "vivado": "vivado asked with -version",
        "absent": None,
        "speaks-up": "speaks-up --version",
        "mute": "",
    }
    assert remote.versions(server.host(), (), subject="doctor") == {}


def test_the_command_line_means_the_same_to_every_shell_of_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "ssh").write_text(
        f"#!{sys.executable}\nimport sys\nprint(sys.argv, file=open('{tmp_path}/said', 'w'))"
    )
    (tmp_path / "ssh").chmod(0o755)
    with pytest.raises(remote.UnreachableError):
        remote.call(Host("board", setup="it's.sh"), "echo 'a\nb' !x \\", subject="build", timeout_s=20)
    *options, dashes, name, command = ast.literal_eval((tmp_path / "said").read_text())
    assert (dashes, name) == ("--", "board")
    assert re.fullmatch("""exec sh -c 'eval "\\$\\(echo [A-Za-z0-9+/=]+ \\| base64 -d\\)"'""", command)
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
    ):
        assert options[options.index(option) - 1] == "-o"
    assert "ServerAliveCountMax=4" in options


@over_ssh
def test_what_a_login_prints_does_not_reach_the_caller(server: Server) -> None:
    (server.home / ".bashrc").write_text("echo noise\n")
    assert remote.call(server.host(), "echo text", subject="build", timeout_s=20) == "text\n"


# ---------------------------------------------------------------- no way to the host


def unreachable(host: Host) -> remote.UnreachableError:
    with pytest.raises(remote.UnreachableError) as error:
        remote.call(host, "true", subject="build", timeout_s=60)
    return error.value


@over_ssh
def test_a_host_whose_key_is_not_on_record_is_refused(server: Server) -> None:
    server.know(None)
    error = unreachable(server.host())
    assert str(error) == (
        "build: host key of 'workstation' must be known, not new; connect once by hand with "
        f"`ssh -F {server.config} workstation` and compare the fingerprint"
    )
    assert not error.heals
    assert server.known_hosts.read_text() == ""


@over_ssh
def test_a_host_with_another_key_than_the_one_on_record_is_refused(server: Server) -> None:
    server.know("other_key")
    error = unreachable(server.host())
    assert str(error) == (
        "build: host key of 'workstation' must be the one on record, not another; "
        "find out why it changed before the record is removed (ssh-keygen -R)"
    )
    assert not error.heals


@over_ssh
def test_a_login_that_is_refused_is_told(server: Server) -> None:
    server.authorize("other_key")
    error = unreachable(server.host())
    assert str(error) == (
        "build: login at 'workstation' must be open to a key, not refused; bring yours there with ssh-copy-id, "
        f"or load it with ssh-add (try `ssh -F {server.config} workstation`)"
    )
    assert not error.heals


@over_ssh
def test_a_host_without_a_server_is_told(server: Server) -> None:
    server.stop()
    error = unreachable(server.host())
    assert str(error) == (
        "build: host 'workstation' must accept connections, not refuse them; "
        "start its ssh server, or set its port in ssh's config"
    )
    assert error.heals


@over_ssh
def test_a_host_that_nobody_knows_is_told(server: Server) -> None:
    error = unreachable(Host("something.invalid", server.config))
    assert str(error) == (
        "build: host 'something.invalid' must have an address, not be unknown; "
        "check the name, or add it to ssh's config"
    )


@over_ssh
def test_words_of_a_script_are_not_taken_for_ssh_s(server: Server) -> None:
    with pytest.raises(remote.UnreachableError) as error:
        remote.call(
            server.host(),
            "echo 'x: Permission denied (publickey).' >&2; kill -9 $(cut -d' ' -f4 /proc/$PPID/stat)",
            subject="build",
            timeout_s=20,
        )
    assert error.value.heals
    assert str(error.value).startswith("build: connection to 'workstation' must hold, not end with ")


@over_ssh
def test_the_first_contact_fails_at_once(server: Server, out: Path) -> None:
    server.stop()
    start = time.monotonic()
    assert "must accept connections, not refuse them" in refusal(build("true"), out, server, retry_s=(60,))
    assert time.monotonic() - start < 10


# ---------------------------------------------------------------- folders


@over_ssh
def test_folders_go_there_and_come_back_as_they_were(server: Server, tmp_path: Path, out: Path) -> None:
    files = tmp_path / "files"
    names = ["a b.bin", "-rf", "deep/er/größe", "x" * 120 + "/" + "y" * 120, "quote's $HOME"]
    for name in names:
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(ALL_BYTES + name.encode())
    (files / "-rf").chmod(0o755)
    (files / "link").symlink_to("a b.bin")
    (files / "empty").mkdir()
    remote.push(server.host(), files, "some where/it's", subject="build")
    (server.home / "some where" / "it's" / "link there").symlink_to("a b.bin")
    wanted = (*names, "link", "link there", "empty", "absent", "a b.bin")
    found = remote.fetch(server.host(), "some where/it's", wanted, out, subject="build")
    assert found == (*names, "link", "link there", "empty")
    for name in names:
        assert (out / name).read_bytes() == ALL_BYTES + name.encode()
    for name in ("link", "link there"):
        assert not (out / name).is_symlink()
        assert (out / name).read_bytes() == (out / "a b.bin").read_bytes()
    assert (out / "empty").is_dir()
    assert [os.access(out / name, os.X_OK) for name in ("-rf", "a b.bin")] == [True, False]
    assert [path.name for path in (server.home / "some where").iterdir()] == ["it's"]


@over_ssh
def test_what_is_pushed_takes_the_place_of_what_was_there(server: Server, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        remote.push(server.host(), tmp_path / name, "where", subject="build")
    assert [path.name for path in (server.home / "where").iterdir()] == ["second"]


@over_ssh
def test_a_push_that_is_cut_leaves_what_was_there(server: Server, tmp_path: Path) -> None:
    (server.home / "where").mkdir()
    (server.home / "where" / "old").touch()
    files = tmp_path / "files"
    files.mkdir()
    (files / "new").write_bytes(bytes(16 << 20))  # more than the pipes on the way hold
    server.program("tar", 'touch "$HOME/pushing"; sleep 0.5; exec /usr/bin/tar "$@"')
    cutter = cut_when(server, server.home / "pushing")
    with pytest.raises(remote.UnreachableError):
        remote.push(server.host(), files, "where", subject="build")
    cutter.join()
    wait_for(lambda: not list(server.home.glob("where.part-*")))
    assert [path.name for path in (server.home / "where").iterdir()] == ["old"]
    remote.push(server.host(), files, "where", subject="build")
    assert [path.name for path in (server.home / "where").iterdir()] == ["new"]


@over_ssh
def test_an_archive_that_ends_between_two_files_is_not_taken_for_whole(
    server: Server, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "new").touch()
    server.program("tar", 'head -c 1024 | /usr/bin/tar "$@"')  # the folder's header and the file's
    with pytest.raises(remote.RemoteFailure):
        remote.push(server.host(), files, "where", subject="build")
    assert not list(server.home.glob("where*"))


def cut_when(server: Server, sign: Path) -> threading.Thread:
    def cut() -> None:
        wait_for(sign.exists)
        server.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    return thread


@over_ssh
def test_a_fetch_that_is_cut_leaves_the_previous_result_whole(server: Server, out: Path) -> None:
    there = server.home / "where"
    there.mkdir()
    for name in ("a", "b"):
        (there / name).write_bytes(b"new" * 1000)
        (out / name).write_text("old")
    half = 'if [ ! -e "$HOME/cut" ]; then /usr/bin/tar "$@" | head -c 4096; touch "$HOME/cut"; sleep 5; fi'
    server.program("tar", f'{half}; exec /usr/bin/tar "$@"')
    cutter = cut_when(server, server.home / "cut")
    with pytest.raises(remote.UnreachableError):
        remote.fetch(server.host(), "where", ("a", "b"), out, subject="build")
    cutter.join()
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "old", "b": "old"}
    remote.fetch(server.host(), "where", ("a", "b"), out, subject="build")
    assert {path.read_bytes() for path in out.iterdir()} == {b"new" * 1000}


@over_ssh
@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_names_outside_the_folder_are_refused(name: str, server: Server, out: Path) -> None:
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (server.home / "evil.tar").write_bytes(evil.getvalue())
    server.program("tar", "cat evil.tar")
    with pytest.raises(ToolError) as error:
        remote.fetch(server.host(), ".", ("evil.tar",), out, subject="build")
    assert str(error.value) == (
        f"build: 'workstation' must send names inside the folder, not {name!r}; check its tar"
    )
    assert list(out.iterdir()) == []


@over_ssh
def test_what_is_no_archive_is_told(server: Server, out: Path) -> None:
    (server.home / "a").touch()
    server.program("tar", "echo words")
    with pytest.raises(ToolError) as error:
        remote.fetch(server.host(), ".", ("a",), out, subject="build")
    assert str(error.value) == (
        "build: 'workstation' must send an archive, not something else (file could not be opened successfully: "
        "truncated header); a login there must print nothing by itself (see .bashrc)"
    ).replace("file could not be opened successfully: truncated header", str(error.value.__cause__))
    assert list(out.iterdir()) == []


# ---------------------------------------------------------------- builds


@over_ssh
def test_a_plan_runs_there_and_its_results_come_back_byte_for_byte(server: Server, out: Path) -> None:
    (out / "in.bin").write_bytes(ALL_BYTES)
    commands = (
        shell("cat in.bin 'a b.txt' > 'top level.bit'; echo first", "logs/1.log"),
        shell("mkdir -p reports/more; echo 7 > 'reports/more/a b.rpt'; echo second >&2", "logs/2.log"),
        shell("read line || echo nobody; printf third", "3.log"),
    )
    plan = Plan({"a b.txt": "größe\n"}, commands, ("top level.bit",))
    lines: list[str] = []
    products = run(plan, out, server, collect=("reports", "absent"), on_line=lines.append)
    assert products == (out / "top level.bit",)
    assert products[0].read_bytes() == ALL_BYTES + "größe\n".encode()
    assert lines == ["first", "second", "nobody", "third"]
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == [
        *("3.log", "a b.txt", "in.bin", "logs/1.log", "logs/2.log", "reports/more/a b.rpt", "top level.bit")
    ]
    assert [(out / command.log).read_text() for command in commands] == [
        "first\n",
        "second\n",
        "nobody\nthird",
    ]
    assert [path.name for path in (server.home / "builds").iterdir()] == [KEY]


@over_ssh
def test_no_shell_reads_the_arguments(server: Server, out: Path) -> None:
    arguments = (
        "a b",
        "$(touch ran)",
        "`touch ran`",
        "'",
        '"',
        "\n",
        "*",
        "~",
        "",
        "größe",
        "\\n",
        "$HOME",
        "; x",
        "-n",
    )
    code = "import sys; open('said', 'wb').write(ascii(sys.argv[1:]).encode())"
    server.program("python-there", f'exec {sys.executable} "$@"')
    run(Plan({}, (Command(("python-there", "-c", code, *arguments), "x.log"),), ("said",)), out, server)
    assert (out / "said").read_text() == ascii(list(arguments))
    assert sorted(path.name for path in (server.home / "builds" / KEY / "work").iterdir()) == [
        "said",
        "x.log",
    ]


@over_ssh
def test_lines_come_while_the_build_runs(server: Server, out: Path) -> None:
    lines: list[str] = []

    def answer(line: str) -> None:
        lines.append(line)
        (server.home / f"answer-{line}").touch()

    run(
        build(*(f"echo {n}; {until(f'answer-{n}')} echo {n} again" for n in (1, 2))),
        out,
        server,
        on_line=answer,
    )
    assert lines == ["1", "1 again", "2", "2 again"]


@over_ssh
def test_a_finished_build_is_only_fetched(server: Server, tmp_path: Path) -> None:
    plan = build(f"{COUNT} echo text > product", products=("product",))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        lines: list[str] = []
        assert run(plan, tmp_path / name, server, on_line=lines.append) == (tmp_path / name / "product",)
        assert (tmp_path / name / "product").read_text() == "text\n"
    assert times_run(server) == 1


@over_ssh
def test_a_build_survives_connections_that_are_lost(server: Server, out: Path) -> None:
    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        if line in ("line 10", "line 200", "line 300"):
            assert server.cut() == 1
            (server.home / line.replace(" ", "-")).touch()

    count = "for n in $(seq {} {}); do echo line $n; done; "
    script = (
        COUNT
        + count.format(1, 150)
        + "printf 'line '; "  # a line that is cut comes whole
        + until("line-10")
        + "echo 151; "
        + count.format(152, 250)
        + until("line-200")
        + count.format(251, 300)
        + "echo done > product; printf last"
    )
    product = run(build(script, products=("product",)), out, server, on_line=cut)[0]
    assert product.read_text() == "done\n"
    assert lines == [*(f"line {n}" for n in range(1, 301)), "last"]
    assert times_run(server) == 1


@over_ssh
def test_a_host_that_stays_away_is_given_up_and_its_build_picked_up_later(server: Server, out: Path) -> None:
    def stop(line: str) -> None:
        server.stop()

    plan = build(f"{COUNT} echo ready; {until('go')} echo text > product", products=("product",))
    assert refusal(plan, out, server, on_line=stop, give_up_s=1) == (
        "build: 'workstation' must answer within 1 s, not be silent; "
        "a build that has started goes on there, and the same command picks it up"
    )
    server.start()
    (server.home / "go").touch()
    lines: list[str] = []
    assert run(plan, out, server, on_line=lines.append)[0].read_text() == "text\n"
    assert times_run(server) == 1


@over_ssh
def test_a_login_that_is_closed_while_a_build_runs_is_told_at_once(server: Server, out: Path) -> None:
    def close(line: str) -> None:
        server.authorize("other_key")
        server.cut()

    plan = build(f"{COUNT} echo ready; {until('go')} touch product", products=("product",))
    assert "must be open to a key, not refused" in refusal(plan, out, server, on_line=close)
    server.authorize("user_key")
    (server.home / "go").touch()
    run(plan, out, server)
    assert times_run(server) == 1


@over_ssh
def test_a_second_run_picks_up_the_build_of_one_that_was_killed(server: Server, out: Path) -> None:
    script = f"{COUNT} echo ready; {until('go')} echo text > product; echo end"
    code = (
        "from pathlib import Path; from flow.build import remote; from flow.types import Command, Plan\n"
        f"plan = Plan({{}}, (Command(('sh', '-c', {script!r}), 'logs/0.log'),), ('product',))\n"
        f"host = remote.Host('workstation', Path({str(server.config)!r}), folder='builds')\n"
        f"remote.run(plan, Path({str(out)!r}), host, subject='build', key={KEY!r}, "
        "on_line=lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen((sys.executable, "-c", code), stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        first.send_signal(signal.SIGKILL)
    lines: list[str] = []

    def go(line: str) -> None:
        lines.append(line)
        (server.home / "go").touch()

    assert run(build(script, products=("product",)), out, server, on_line=go)[0].read_text() == "text\n"
    assert lines == ["ready", "end"]
    assert times_run(server) == 1


@over_ssh
def test_an_interrupted_run_leaves_the_build_running(server: Server, out: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    plan = build(f"{COUNT} echo ready; {until('go')} touch product", products=("product",))
    with pytest.raises(KeyboardInterrupt):
        run(plan, out, server, on_line=interrupt)
    (server.home / "go").touch()
    run(plan, out, server)
    assert times_run(server) == 1


@over_ssh
def test_two_runs_at_once_start_one_build(server: Server, tmp_path: Path) -> None:
    plan = build(f"{COUNT} echo text > product; sleep 1", products=("product",))
    products = []

    def one(name: str) -> None:
        (tmp_path / name).mkdir()
        products.extend(run(plan, tmp_path / name, server))

    threads = [threading.Thread(target=one, args=(name,)) for name in ("first", "second", "third")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [product.read_text() for product in products] == ["text\n"] * 3
    assert times_run(server) == 1
    assert [path.name for path in (server.home / "builds").iterdir()] == [KEY]


@over_ssh
def test_programs_come_from_the_setup(server: Server, out: Path) -> None:
    (server.home / "tools").mkdir()
    (server.home / "settings.sh").write_text('export PATH="$HOME/tools:$PATH"\n')
    server.program("../home/tools/vivado", "touch top.bit")
    plan = Plan({}, (Command(("vivado",), "vivado.log"),), ("top.bit",))
    assert refusal(plan, out, server) == (
        "build: 'vivado' must be on PATH of 'workstation', not missing; install it there, "
        "or give the host a setup file that finds it"
    )
    assert not (server.home / "builds").exists()
    remote.run(plan, out, server.host(setup="settings.sh"), subject="build", key=KEY)
    assert (out / "top.bit").exists()


# ---------------------------------------------------------------- builds that fail


@over_ssh
def test_a_failing_program_is_told_in_the_words_of_a_local_build(server: Server, out: Path) -> None:
    script = f"{COUNT} for i in $(seq 40); do echo line $i; done; echo broken >&2; exit 3"
    commands = (shell("echo fine"), shell(script, "logs/2.log", "synthesis"), shell("touch ../../../after"))
    plan = Plan({}, commands, ("product",))
    shown = "\n".join(f"    {line}" for line in [*(f"line {i}" for i in range(12, 41)), "broken"])
    assert refusal(plan, out, server) == (
        f"build: 'synthesis' must exit with 0, not 3; its output ends with\n{shown}"
    )
    assert (out / "logs" / "1.log").read_text() == "fine\n"
    assert (out / "logs" / "2.log").read_text().count("\n") == 41
    assert not (server.home / "after").exists()
    refusal(plan, out, server)
    assert times_run(server) == 2


@over_ssh
def test_a_failure_that_nobody_heard_of_is_told_before_it_runs_anew(server: Server, out: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    plan = build(f"{COUNT} echo ready; {until('go')} exit 4")
    with pytest.raises(KeyboardInterrupt):
        run(plan, out, server, on_line=interrupt)
    (server.home / "go").touch()
    wait_for((server.home / "builds" / KEY / "state").exists)
    text = "build: 'sh' must exit with 0, not 4; its output ends with\n    ready"
    assert (refusal(plan, out, server), times_run(server)) == (text, 1)
    assert (refusal(plan, out, server), times_run(server)) == (text, 2)


@over_ssh
def test_a_program_past_its_time_is_ended(server: Server, out: Path) -> None:
    script = "echo begins; sleep 61 & echo $! > ../../../child; wait"
    start = time.monotonic()
    assert refusal(build("true", script), out, server, timeout_s=1.5) == (
        f"build: 'sh' must end within 1.5 s, not run on; its output is in {out / 'logs' / '1.log'}"
    )
    assert time.monotonic() - start < 30
    assert (out / "logs" / "1.log").read_text().startswith("begins\n")
    wait_for(lambda: ended(int((server.home / "child").read_text())))


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@over_ssh
@pytest.mark.parametrize("status", [124, 137])
def test_a_status_of_the_program_is_not_taken_for_the_limit(status: int, server: Server, out: Path) -> None:
    assert refusal(build(f"echo quick; exit {status}"), out, server, timeout_s=60) == (
        f"build: 'sh' must exit with 0, not {status}; its output ends with\n    quick"
    )


@over_ssh
def test_a_build_that_is_killed_is_told_and_starts_anew_then(server: Server, out: Path) -> None:
    kill = "[ -e ../../../killed ] || { touch ../../../killed; kill -9 $(cat ../mark | cut -d' ' -f1); sleep 1; }"
    plan = build(f"{COUNT} echo ready; {kill}; touch product", products=("product",))
    assert refusal(plan, out, server) == (
        "build: the build on 'workstation' must run to its end, not be killed (by a restart, or for want of memory); "
        "run it again to start anew; its output ends with\n    ready"
    )
    run(plan, out, server)
    assert times_run(server) == 2


@over_ssh
def test_another_process_of_the_same_number_is_not_taken_for_the_build(server: Server, out: Path) -> None:
    place = server.home / "builds" / KEY
    (place / "work").mkdir(parents=True)
    (place / "log").write_text("old\n")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    (place / "mark").write_text(f"{os.getpid()} 1 {boot}")
    assert "must run to its end, not be killed" in refusal(build("true"), out, server)


@over_ssh
def test_a_missing_product_is_told_whatever_lies_here(server: Server, out: Path) -> None:
    (out / "logs").mkdir()
    plan = build("true", "mv a.bit gone", products=("a.bit",))
    (out / "a.bit").write_text("of an earlier build")
    assert refusal(plan, out, server) == (
        f"build: 'sh' must leave a.bit, not end without it; see {out / 'logs' / '1.log'}"
    )


NO_ROOM = "build: 'workstation' must have room in 'builds', not a full disk; free some there and run again"


@over_ssh
def test_a_disk_that_is_full_when_files_arrive_is_told(server: Server, out: Path) -> None:
    server.program("tar", "cat > /dev/null; echo 'tar: work: No space left on device' >&2; exit 2")
    assert refusal(build("true"), out, server) == NO_ROOM


@over_ssh
def test_a_disk_that_is_full_while_a_build_runs_is_told(server: Server, out: Path) -> None:
    assert refusal(build("echo 'write error: No space left on device'; exit 1"), out, server) == NO_ROOM


# ---------------------------------------------------------------- what stays there


@over_ssh
def test_removing_a_build_ends_it(server: Server, out: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(build("sleep 62 & echo $! > ../../../child; echo ready; wait"), out, server, on_line=interrupt)
    remote.remove(server.host(), KEY)
    wait_for(lambda: ended(int((server.home / "child").read_text())))
    assert list((server.home / "builds").iterdir()) == []
    remote.remove(server.host(), KEY)


@over_ssh
def test_a_new_build_removes_finished_ones_of_long_ago_alone(server: Server, out: Path) -> None:
    builds = server.home / "builds"
    long_ago = time.time() - 32 * 24 * 3600
    for name, files in {
        "aaaaaaaa": ("state",),
        "bbbbbbbb": ("mark",),  # it may run yet
        "cccccccc": (),
        "not-a-build": ("state",),
    }.items():
        (builds / name).mkdir(parents=True)
        for file in files:
            (builds / name / file).write_text("- 0\n")
            os.utime(builds / name / file, (long_ago, long_ago))
        os.utime(builds / name, (long_ago, long_ago))
    (builds / "dddddddd").mkdir()
    (builds / "dddddddd" / "state").write_text("- 0\n")
    run(build("true"), out, server)
    assert sorted(path.name for path in builds.iterdir()) == [
        *(KEY, "bbbbbbbb", "cccccccc", "dddddddd", "not-a-build")
    ]
