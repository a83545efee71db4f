"""Archives that a host sends: plain files that were asked for come through, and nothing else does."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from flow.build import remote
from flow.build.remote import folders
from flow.errors import FlowError, ToolError

HOST = remote.Host("board")
Member = tuple[str, bytes] | tarfile.TarInfo


def entry(name: str, kind: bytes = tarfile.DIRTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def archive(members: Iterable[Member], form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as packed:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                packed.addfile(member)
            else:
                packed.addfile(entry(member[0], tarfile.REGTYPE, size=len(member[1])), io.BytesIO(member[1]))
    return file.getvalue()


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function that fetches what a host sends into a folder."""
    out = tmp_path / "out"
    out.mkdir()

    def sent(content: bytes, *names: str) -> dict[str, bytes]:
        monkeypatch.setattr(folders, "talk", lambda *args, output, **options: output.write_bytes(content))
        folders.fetch(HOST, ".", names or ("a", "b"), out, subject="build")
        return files(out)

    sent.out = out
    return sent


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def refused(sent, content: bytes, *names: str) -> str:
    with pytest.raises(ToolError) as error:
        sent(content, *names)
    assert files(sent.out) == {}
    assert [path.name for path in sent.out.parent.iterdir()] == ["out"]
    return str(error.value)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_and_folders_come_as_they_were(sent, form: int) -> None:
    members = [("./a", b"one"), entry("./b"), ("./b/c", b"two"), ("./b/" + "d" * 120, b"three")]
    assert sent(archive(members, form)) == {"a": b"one", "b/c": b"two", "b/" + "d" * 120: b"three"}


def test_two_names_of_one_file_come_as_two_files(sent) -> None:
    members = [("./a", b"one"), entry("./b", tarfile.LNKTYPE, "./a"), entry("./a", tarfile.LNKTYPE, "./a")]
    assert sent(archive(members)) == {"a": b"one", "b": b"one"}


def test_a_name_that_comes_twice_is_the_last_one_and_no_link_writes_through(sent) -> None:
    members = [("./a", b"one"), entry("./b", tarfile.LNKTYPE, "./a"), ("./b", b"two")]
    assert sent(archive(members)) == {"a": b"one", "b": b"two"}


def test_sockets_and_devices_are_left_out(sent) -> None:
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    assert sent(archive([*(entry("./b", kind) for kind in kinds), ("./a", b"one")])) == {"a": b"one"}


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([entry("./a", tarfile.SYMTYPE, "/etc/passwd")], "files in the place of links, not the link './a'"),
        (
            [entry("./a", tarfile.SYMTYPE, ".."), ("./a/escaped", b"")],
            "files in the place of links, not the link './a'",
        ),
        ([entry("./a", tarfile.SYMTYPE, "a")], "files in the place of links, not the link './a'"),
        ([entry("./a", tarfile.LNKTYPE, "./a")], "links to files before them, not './a'"),
        (
            [entry("./a", tarfile.LNKTYPE, "./b"), entry("./b", tarfile.LNKTYPE, "./a")],
            "links to files before them, not './b'",
        ),
        ([entry("./a", tarfile.LNKTYPE, "/etc/passwd")], "links to files before them, not '/etc/passwd'"),
        (
            [entry("./a", tarfile.LNKTYPE, "../../../../../../etc/passwd")],
            "links to files before them, not '../../../../../../etc/passwd'",
        ),
        ([("./a", b""), entry("./a")], "a file or a folder of one name, not both: './a'"),
        ([entry("./a"), ("./a", b"")], "a file or a folder of one name, not both: './a'"),
        ([("./a", b""), ("./a/b", b"")], "a file or a folder of one name, not both: './a/b'"),
        ([("./a", b""), ("./c", b"")], "what was asked for, not './c'"),
        ([("./.bashrc", b"")], "what was asked for, not './.bashrc'"),
        ([("./" + "c" * 3000, b"")], "what was asked for, not './" + "c" * 78 + "'"),
        ([("./ab", b"")], "what was asked for, not './ab'"),
        ([("/a", b"")], "names inside the folder, not '/a'"),
        ([("./a/../../b", b"")], "names inside the folder, not './a/../../b'"),
        (
            [("./a", b"x"), entry("./b", tarfile.LNKTYPE, "../out")],
            "links to files before them, not '../out'",
        ),
        ([("./a/" + "b" * 300, b"")], "names that can stand here, not fail with File name too long"),
        ([("./a/" + "b/" * 3000, b"")], "names that can stand here, not fail with File name too long"),
    ],
)
def test_what_is_no_plain_file_that_was_asked_for_is_refused(sent, members: list[Member], told: str) -> None:
    assert refused(sent, archive(members)) == f"build: 'board' must send {told}; check its tar"


def test_a_nul_in_a_name_is_refused(sent) -> None:
    member = tarfile.TarInfo("./a/x")
    member.pax_headers = {"path": "./a/\0x"}
    assert refused(sent, archive([member], tarfile.PAX_FORMAT)) == (
        "build: 'board' must send an archive, not something else (embedded null byte); "
        "a login there must print nothing by itself (see .bashrc)"
    )


def test_what_is_compressed_is_not_unpacked(sent) -> None:
    packed = gzip.compress(archive([("./a", bytes(30_000_000))]))
    assert len(packed) < 40_000
    tracemalloc.start()
    message = refused(sent, packed)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert message.startswith("build: 'board' must send an archive, not something else (")


def test_a_file_of_holes_is_not_written(sent) -> None:
    sparse = tarfile.TarInfo("./a")
    sparse.size = 512
    sparse.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(10**13),
    }
    content = archive([], tarfile.PAX_FORMAT)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as packed:
        packed.addfile(sparse, io.BytesIO(bytes(512)))
    assert len(file.getvalue()) <= len(content) + 10240
    assert refused(sent, file.getvalue()) == (
        "build: 'board' must send at most 100,000 files of the archive's size, not more; check its tar"
    )


def test_links_by_the_thousand_take_no_room(sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_FILES", 50)
    links = [entry(f"./b/{number}", tarfile.LNKTYPE, "./a") for number in range(49)]
    got = sent(archive([("./a", bytes(1000)), *links]))
    assert len(got) == 50
    assert len({path.stat().st_ino for path in sent.out.rglob("*") if path.is_file()}) == 1


def test_more_files_than_a_build_has_are_refused(sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_FILES", 50)
    assert refused(sent, archive([(f"./a/{number}", b"") for number in range(51)])) == (
        "build: 'board' must send at most 50 files of the archive's size, not more; check its tar"
    )


@pytest.mark.parametrize("here", ["file", "folder"])
def test_a_folder_here_and_a_file_there_are_told(sent, here: str) -> None:
    if here == "file":
        (sent.out / "a").write_bytes(b"mine")
        content = archive([("./a/b", b"one")])
    else:
        (sent.out / "a" / "mine").mkdir(parents=True)
        content = archive([("./a", b"one")])
    with pytest.raises(ToolError) as error:
        sent(content)
    assert str(error.value) == (
        f"build: {str(sent.out / 'a')!r} must be here what it is on 'board', not a file here and a folder there or the "
        "reverse; remove it"
    )


def test_spoilt_archives_give_a_refusal_or_files_that_were_asked_for(sent) -> None:
    rng = random.Random(0)
    members = [("./a", b"one" * 50), entry("./b"), ("./b/c", b"two"), entry("./b/d", tarfile.LNKTYPE, "./a")]
    whole = archive(members, tarfile.PAX_FORMAT)
    for _ in range(300):
        spoilt = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3, 10))):
            spoilt[rng.randrange(len(whole) if rng.random() < 0.2 else 3072)] = rng.randrange(256)
        try:
            got = sent(bytes(spoilt[: rng.choice((len(whole), len(whole), rng.randrange(len(whole))))]))
        except FlowError:
            continue
        assert all(name.startswith(("a", "b")) for name in got)
    assert sorted(path.name for path in sent.out.parent.iterdir()) == ["out"]
