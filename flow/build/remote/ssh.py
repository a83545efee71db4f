"""One script on another host, over the OpenSSH client: what is sent there, what comes back, what can go wrong."""

from __future__ import annotations

import base64
import re
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from flow.build import plan
from flow.build.room import told
from flow.errors import ConfigError, ToolError

_OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
    # of the user's own config: a master that goes on would hold our pipes, forwards and commands are for log-ins
    *("-o", "ControlMaster=no", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
_NAME = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?"
    r"([A-Za-z0-9_][A-Za-z0-9._-]*|(?=[^:]*:[^:]*:)[0-9A-Fa-f:.]+)"  # the second one: IPv6
)
_UNREACHABLE = (  # what ssh says, in English everywhere; what it means; whether it may work in a while
    (
        "Could not resolve hostname",
        "host {name!r} must have an address, not be unknown; check the name, or add it to ssh's config",
        True,
    ),
    (
        "Connection refused",
        "host {name!r} must accept connections, not refuse them; start its ssh server, or set its port in ssh's config",
        True,
    ),
    (
        "No route to host|timed out|is unreachable",
        "host {name!r} must be reachable, not silent; check that it is up, and the network or VPN to it",
        True,
    ),
    (
        "IDENTIFICATION HAS CHANGED|host key .* has changed",
        "host key of {name!r} must be the one on record, not another; find out why it changed before the record "
        "is removed (ssh-keygen -R)",
        False,
    ),
    (
        "Host key verification failed",
        "host key of {name!r} must be known, not new; connect once by hand with `{by_hand}` and compare the "
        "fingerprint",
        False,
    ),
    (
        r"Permission denied \(",
        "login at {name!r} must be open to a key, not refused; bring yours there with ssh-copy-id, or load it with "
        "ssh-add (try `{by_hand}`)",
        False,
    ),
)
_LOST = "connection to {name!r} must hold, not end with {last!r}; try `{by_hand}`"
FOLDER = ".cache/prune2bit"


@dataclass(frozen=True)
class Host:
    """A host that OpenSSH reaches without asking anything; a Linux with the usual small programs.

    ``name``: ``user@workstation``, an IPv6 address, or an alias of ssh's config. ``ssh_config``: a config file in the
    place of the user's (``ssh -F``). ``setup``: a file there that is sourced, by bash where there is one, before
    any program, such as Vivado's ``settings64.sh``. ``folder``: where work lies there. Paths there are absolute or
    relative to the login's home.
    """

    name: str
    ssh_config: Path | None = None
    setup: str | None = None
    folder: str = FOLDER


class UnreachableError(ToolError):
    """ssh found no way to the host, or lost it.

    ``heals``: whether the same may work in a while; ``connected``: whether the script had begun.
    """

    def __init__(self, message: str, *, heals: bool, connected: bool) -> None:
        super().__init__(message)
        self.heals = heals
        self.connected = connected


class RemoteFailure(ToolError):  # noqa: N818 - a status is an answer, too: callers read it
    """A script on a host ended with a ``status`` other than 0.

    ``output``, ``errors``: the last lines of its stdout and stderr.
    """

    def __init__(self, message: str, status: int, output: str, errors: str) -> None:
        super().__init__(message)
        self.status = status
        self.output = output
        self.errors = errors


def check(host: Host, subject: str) -> None:
    """Refuse a host whose parts could be read as anything but a name and paths.

    Raises:
        ConfigError: a name that is no host's, a path that is none, a config file that is not there.
    """
    if not _NAME.fullmatch(host.name):
        raise ConfigError(
            f"{subject}: host must be a name such as user@workstation, not {host.name!r}; "
            "a port or a proxy belongs into ssh's config"
        )
    for what, path in (("folder", host.folder), ("setup", host.setup)):
        if path is not None and (not path.isprintable() or not path.strip("/ ") or path[0] in "~-"):
            raise ConfigError(
                f"{subject}: {what} must be a path on the host, absolute or relative to the home there, not {path!r}; "
                "write it without ~"
            )
    if host.ssh_config is not None and not host.ssh_config.is_file():
        raise ConfigError(
            f"{subject}: ssh_config must be a file, not {str(host.ssh_config)!r}; leave it out to take ssh's own"
        )


def call(
    host: Host,
    script: str,
    *,
    subject: str,
    timeout_s: float | None,
    stdin: Path | bytes | None = None,
    output: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Run a POSIX shell script on a host, after the host's setup, and return what it printed.

    Args:
        host: where; see `check`.
        script: its text; values that go into it are the caller's to quote (`shlex.quote`).
        subject: the stage, for error messages.
        timeout_s: limit in seconds, after which the connection ends, or None. The script there hears of it when
            it prints next.
        stdin: a file or bytes that it reads; None: nothing.
        output: the file here that takes its stdout, byte for byte; the text returned is empty then.
        on_line: called with every line of its stdout as it comes.

    Raises:
        ConfigError: the host is not one, or its setup is not there.
        UnreachableError: ssh does not get there, or loses the connection.
        RemoteFailure: the script ended with another status than 0.
        ToolError: it ran past its limit; the disk there is full; ssh is not on PATH.
    """
    lines: list[str] = []

    def take(line: bytes) -> None:
        lines.append(line.decode(errors="replace"))
        if on_line:
            on_line(lines[-1].rstrip())

    talk(host, script, subject=subject, timeout_s=timeout_s, stdin=stdin, output=output, on_line=take)
    return "".join(lines)


def talk(
    host: Host,
    script: str,
    *,
    subject: str,
    timeout_s: float | None = None,
    stdin: Path | bytes | None = None,
    output: Path | None = None,
    on_line: Callable[[bytes], None] = lambda line: None,
    setup: bool = True,
) -> None:
    """Run a script as `call` does; lines are bytes, ends included; ``setup``: whether the host's is sourced."""
    check(host, subject)
    token = secrets.token_hex(16)
    greeted: list[bool] = []
    printed: deque[str] = deque(maxlen=30)

    def take(line: bytes) -> None:
        if greeted:
            printed.append(line.decode(errors="replace").rstrip())
            on_line(line)
        elif line.rstrip().endswith(token.encode()):  # what came before is the login's own, such as .bashrc's
            greeted.append(True)

    config = ("-F", str(host.ssh_config)) if host.ssh_config else ()
    command = _wrapped(script, host.setup if setup else None, token, greet=output is None)
    ended = plan.pipe(
        ("ssh", *_OPTIONS, *config, "--", host.name, command),
        subject=subject,
        stdin=stdin,
        output=output,
        on_line=take,
        timeout_s=timeout_s,
    )
    if ended.expired:
        raise ToolError(
            f"{subject}: what runs on {host.name!r} must end within {timeout_s:g} s, not run on; "
            "try it there by hand, or allow more time"
        )
    _judge(host, subject, token, bool(greeted), tuple(printed), ended)


def script(name: str, **values: str) -> str:
    """Return the text of a script beside this file with values for its variables; it starts in the login's home."""
    assignments = "".join(f"{key}={quote(value)}\n" for key, value in values.items())
    texts = (_here(file) for file in ("common", name))
    return f"cd || exit\n{assignments}{''.join(texts)}"


def job(steps: Sequence[str], limit_s: float | None) -> str:
    """Return the text of the script that runs ``steps``, each ``LOG PROGRAM ARGUMENT...``, quoted, with nobody near."""
    limit = "" if limit_s is None else f"{limit_s:g}"
    head = f"limit={limit}\nwhole={int(limit_s or 0)}\n{_here('common')}{_here('job')}"
    return head + "".join(f"step {index} {step}\n" for index, step in enumerate(steps)) + "finish '- 0'\n"


def versions(
    host: Host, programs: Sequence[str], *, subject: str, timeout_s: float = 120
) -> Mapping[str, str | None]:
    """Return the first line of each program's version on a host; empty: it says nothing; None: it is not there.

    Args:
        host: where; its setup is sourced first.
        programs: names of programs.
        subject: the stage, for error messages.
        timeout_s: limit for all of them together, in seconds.

    Raises:
        ConfigError, ToolError: as `call`.
    """
    mark = secrets.token_hex(16)
    text = ""
    for program in programs:
        asked = f"{quote(program)} {plan.version_option(program)} </dev/null"
        text += (
            f"printf '\\n%s\\n' {mark}\n"
            f"if command -v {quote(program)} >/dev/null 2>&1; then\n"
            f"said=$({asked} 2>/dev/null)\n"
            f'[ -n "$said" ] || said=$({asked} 2>&1)\n'
            "printf '+%s\\n' \"$said\"\nfi\n"
        )
    answers = call(host, text + ":\n", subject=subject, timeout_s=timeout_s).split(f"\n{mark}\n")[1:]
    return {program: _first_line(answer) for program, answer in zip(programs, answers, strict=True)}


def _first_line(answer: str) -> str | None:
    """Return the first line of an answer that holds anything; None: there is no program that could give one."""
    if not answer.startswith("+"):
        return None
    return next((line.strip() for line in answer[1:].splitlines() if line.strip()), "")


def _here(name: str) -> str:
    return Path(__file__).with_name(f"{name}.sh").read_text(encoding="utf-8")


def _wrapped(script: str, setup: str | None, token: str, *, greet: bool) -> str:
    """Return the command line that runs a script, after the setup, and tells its status on stderr.

    255 from ssh alone may be a program's or ssh's own, and a connection that is lost may look like an end.
    """
    run = f"sh -c {quote(script)}"
    if setup is not None:  # the vendor's are written for bash; their status and their words mean nothing
        file = quote(setup if "/" in setup else f"./{setup}")
        sourced = quote('. "$1" </dev/null >&2; exec sh -c "$2"')
        run = (
            f"if [ -r {file} ]; then\n"
            f"$(command -v bash || command -v sh) -c {sourced} setup {file} {quote(script)}\n"
            f"else printf '\\n%s\\n' '{token} setup' >&2; exit 1; fi"
        )
    greeting = f"printf '%s\\n' {token}"
    whole = (
        f"{greeting} >&2\n"
        f"{greeting if greet else ':'}\n"
        f"cd\n{run}\n"
        f"status=$?; printf '\\n%s\\n' \"{token} $status\" >&2; exit $status"
    )
    # one line without quotes in it means the same to every shell that a login may have, csh and fish among them
    return f"exec sh -c 'eval \"$(echo {base64.b64encode(whole.encode()).decode()} | base64 -d)\"'"


def _judge(
    host: Host, subject: str, token: str, greeted: bool, printed: Sequence[str], ended: plan.Ended
) -> None:
    """Raise the error that the end of a script, or of the connection, stands for."""
    said = [line.split()[-1] for line in ended.errors if line.startswith(f"{token} ")]
    errors = [line for line in ended.errors if line.strip() and token not in line]
    if not said:
        raise _unreachable(host, subject, greeted or any(token in line for line in ended.errors), errors)
    if said == ["setup"]:
        raise ConfigError(
            f"{subject}: setup must be a readable file on {host.name!r}, not {host.setup!r}; give its path there"
        )
    if said != ["0"]:
        lines = (*printed, *errors)[-30:]
        if told(lines):
            raise full(host, subject)
        failure = plan.failure(f"{subject}: what runs on {host.name!r}", int(said[-1]), lines)
        raise RemoteFailure(str(failure), int(said[-1]), "\n".join(printed), "\n".join(errors))


def full(host: Host, subject: str) -> ToolError:
    """Return the error of a full disk on a host."""
    return ToolError(
        f"{subject}: {host.name!r} must have room in {host.folder!r}, not a full disk; free some there and run again"
    )


def _unreachable(host: Host, subject: str, connected: bool, errors: Sequence[str]) -> UnreachableError:
    """Tell from ssh's words why there is no connection; of a connection that was, they may be the script's."""
    by_hand = f"ssh -F {host.ssh_config} {host.name}" if host.ssh_config else f"ssh {host.name}"
    last = errors[-1] if errors else "no word"
    message, heals = _LOST, True
    if not connected:
        text = "\n".join(errors)
        known = (entry[1:] for entry in _UNREACHABLE if re.search(entry[0], text))
        message, heals = next(known, (message, heals))
    told = message.format(name=host.name, by_hand=by_hand, last=last)
    return UnreachableError(f"{subject}: {told}", heals=heals, connected=connected)
