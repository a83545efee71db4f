"""The store: results appear whole, are checked when they are read, and are never lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flow.errors import ConfigError, ToolError
from flow.files import write_atomically
from flow.run.store import Entry, Store

KEY = "0123456789abcdef0123"


def build(store: Store, stage: str, key: str, text: str) -> None:
    with store.building(stage) as folder:
        (folder / "result.txt").write_text(text)
        store.add(stage, key, folder, {"figure": 1}, 0.5)


def test_a_result_is_found_again_with_its_figures(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "train", KEY, "good")
    entry = Store(tmp_path).find("train", KEY)
    assert entry is not None
    assert (entry.folder / "result.txt").read_text() == "good"
    assert (entry.figures, entry.seconds) == ({"figure": 1}, 0.5)


def test_another_key_is_another_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "train", KEY, "good")
    assert store.find("train", "f" * 20) is None


def test_equal_files_have_equal_hashes_whatever_the_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "train", KEY, "same")
    build(store, "train", "f" * 20, "same")
    build(store, "train", "e" * 20, "other")
    one, two, three = (store.find("train", key) for key in (KEY, "f" * 20, "e" * 20))
    assert one and two and three
    assert one.hash == two.hash != three.hash


@pytest.mark.parametrize("damage", ["altered", "gone", "emptied"])
def test_a_damaged_result_is_refused_and_kept(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    build(store, "prune", KEY, "good")
    folder = tmp_path / ".store" / f"prune-{KEY[:16]}"
    file = folder / "result.txt"
    if damage == "altered":
        file.write_text("goof")
    elif damage == "gone":
        file.unlink()
    else:
        file.write_text("")
    with pytest.raises(ConfigError) as error:
        store.find("prune", KEY)
    assert str(error.value) == (
        f"prune: cached result must be as it was written, but result.txt is missing or altered in {folder}; "
        "keep what you need of it, then run again with --from prune"
    )
    assert folder.is_dir()


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"files": 1}'])
def test_a_broken_record_is_refused(tmp_path: Path, record: str) -> None:
    store = Store(tmp_path)
    build(store, "prune", KEY, "good")
    folder = tmp_path / ".store" / f"prune-{KEY[:16]}"
    (folder / "entry.json").write_text(record)
    with pytest.raises(ConfigError, match="entry.json is missing or altered"):
        store.find("prune", KEY)


def test_files_that_were_added_later_do_no_harm(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "synthesize", KEY, "good")
    before = store.find("synthesize", KEY)
    (tmp_path / ".store" / f"synthesize-{KEY[:16]}" / "vivado.log").write_text("built by hand")
    after = store.find("synthesize", KEY)
    assert before and after
    assert before.hash == after.hash


def test_a_stage_that_fails_leaves_nothing_and_keeps_the_old_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "train", KEY, "good")

    def fail() -> None:
        with store.building("train") as folder:
            (folder / "half.txt").write_text("half")
            raise RuntimeError("died")

    with pytest.raises(RuntimeError, match="died"):
        fail()
    assert sorted(path.name for path in (tmp_path / ".store").iterdir()) == [f"train-{KEY[:16]}"]
    assert store.find("train", KEY) is not None


def test_what_a_failed_tool_left_is_kept_where_the_error_says(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(text: str) -> None:
        with store.building("synthesize") as folder:
            (folder / "vivado.log").write_text(text)
            raise ToolError(f"its output is in {folder / 'vivado.log'}")

    for text in ("first", "second"):
        with pytest.raises(ToolError) as caught:
            fail(text)
        log = tmp_path / "failed" / "synthesize" / "vivado.log"
        assert str(caught.value) == f"its output is in {log}"
        assert log.read_text() == text
    with store.building("synthesize") as folder:
        (folder / "net.bit").write_text("whole")
        store.add("synthesize", "1" * 64, folder, {}, 0.0)
    assert not (tmp_path / "failed" / "synthesize").exists()


def test_the_stage_that_is_shown_can_be_read_by_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ConfigError) as caught:
        store.shown("convert")
    assert str(caught.value) == (
        f"convert: {str(tmp_path / 'convert')!r} must be a finished stage, not missing; flow run makes it"
    )
    with store.building("convert") as folder:
        (folder / "net.cpp").write_text("// C++")
        entry = store.add("convert", "2" * 64, folder, {"top": "net"}, 1.5)
    store.show("convert", entry)
    assert store.shown("convert") == Entry(entry.folder.resolve(), entry.hash, {"top": "net"}, 1.5)
    (entry.folder / "net.cpp").write_text("// altered")
    with pytest.raises(ConfigError, match="net.cpp is missing or altered"):
        store.shown("convert")


def test_what_a_killed_run_left_half_done_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    half = tmp_path / ".store" / ".building-train"
    half.mkdir()
    (half / "half.txt").write_text("half")
    with store.locked():
        assert not half.exists()


def test_a_result_under_the_same_key_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "train", KEY, "old")
    build(store, "train", KEY, "new")
    entry = store.find("train", KEY)
    assert entry is not None
    assert (entry.folder / "result.txt").read_text() == "new"


def test_the_link_follows_the_newest_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key, text in ((KEY, "one"), ("f" * 20, "two")):
        build(store, "train", key, text)
        entry = store.find("train", key)
        assert entry is not None
        store.show("train", entry)
        assert (tmp_path / "train" / "result.txt").read_text() == text


def test_a_folder_of_the_user_is_not_replaced_by_a_link(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store, "train", KEY, "one")
    (tmp_path / "train").mkdir()
    entry = store.find("train", KEY)
    assert entry is not None
    with pytest.raises(ConfigError) as error:
        store.show("train", entry)
    assert str(error.value) == (
        f"out: '{tmp_path / 'train'}' must be free for the stage's result, not taken; move it away, "
        "or choose another --out"
    )


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(ConfigError) as error:
        Store(file)
    assert str(error.value) == f"out: '{file}' must be a folder, not a file; choose another with --out"
    assert file.read_text() == "mine"


def test_an_output_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError) as error:
        Store(tmp_path / "out")
    assert str(error.value) == (
        f"out: '{tmp_path / 'out'}' must be writable, not refuse (Permission denied); choose another with --out"
    )


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = (
        "import sys; from pathlib import Path; from flow.run.store import Store\n"
        "with Store(Path(sys.argv[1])).locked(): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    try:
        with pytest.raises(ConfigError) as error, store.locked():
            pass
        assert str(error.value) == (
            f"out: '{tmp_path}' must be used by one run at a time, not two; wait for the other, "
            "or choose another with --out"
        )
    finally:
        other.kill()
        other.communicate()
    with store.locked():  # a killed run holds nothing back
        pass


def checkpoints(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.glob(".resume-*"))


def test_a_checkpoint_outlives_a_kill_and_what_was_half_written_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, parts = Store(tmp_path), []
    file = store.checkpoint("train", KEY)
    write_atomically(file, "state")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda part, _: parts.append(part))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        write_atomically(file, "half")  # as if it were killed before the rename
    half = Path(parts[0])
    assert half.read_text() == "half"
    with Store(tmp_path).locked():
        assert file.read_text() == "state"
        assert not half.exists()
    assert store.checkpoint("train", KEY) == file != store.checkpoint("train", "f" * 20)


def test_checkpoints_outlive_a_stage_that_fails_and_other_stages(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for stage, key in (("train", KEY), ("train", "f" * 20), ("prune", KEY)):
        store.checkpoint(stage, key).write_text("state")
    with pytest.raises(RuntimeError, match="died"), store.building("train"):
        raise RuntimeError("died")
    assert len(checkpoints(store)) == 3
    build(store, "train", KEY, "good")
    assert checkpoints(store) == [f".resume-prune-{KEY[:16]}.pt"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"figure": 1', '"figure": 2'), ("0.5", "0.6"), (KEY, KEY[::-1]), ("result.txt", "resulT.txt")],
)
def test_one_digit_of_a_record_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    store = Store(tmp_path)
    build(store, "emulate", KEY, "good")
    file = tmp_path / ".store" / f"emulate-{KEY[:16]}" / "entry.json"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match="entry.json is missing or altered"):
        store.find("emulate", KEY)


def test_the_record_of_another_result_is_refused(tmp_path: Path) -> None:
    store, other = Store(tmp_path), "f" * 20
    build(store, "emulate", KEY, "good")
    build(store, "emulate", other, "good")
    source, target = (tmp_path / ".store" / f"emulate-{key[:16]}" / "entry.json" for key in (KEY, other))
    target.write_bytes(source.read_bytes())
    with pytest.raises(ConfigError, match="entry.json is another result's"):
        store.find("emulate", other)


def test_building_folders_have_names_of_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.building("emulate") as first:
        pass
    with store.building("emulate") as second:
        assert first != second and first.parent == second.parent
