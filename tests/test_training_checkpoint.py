"""A checkpoint: found again whole or not at all, and nothing in a file is trusted."""

import errno
import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flow.errors import ConfigError
from flow.training.checkpoint import MAGIC, Checkpoint

RUN = {"seed": 0, "data": "abc"}


def state(epoch: int = 3) -> dict[str, Any]:
    return {"epoch": epoch, "model": {"w": torch.arange(6.0).reshape(2, 3)}, "history": [{"loss": 0.5}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.pt"
    Checkpoint(path, RUN).save(state())
    return path


def test_a_state_is_found_again_as_it_was(tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters())
    optimizer.step()
    saved = {
        **state(),
        "mixed": (None, True, "text", -1, float("inf"), [np.float64(0.1), np.int64(7)]),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }
    Checkpoint(tmp_path / "new" / "run.pt", RUN).save(saved)
    found = Checkpoint(tmp_path / "new" / "run.pt", RUN).load()
    assert found is not None
    assert found["mixed"] == (None, True, "text", -1, float("inf"), [0.1, 7])
    assert type(found["mixed"][5][0]) is float
    assert torch.equal(found["rng"], saved["rng"])
    assert torch.equal(found["model"]["w"], saved["model"]["w"])
    optimizer.load_state_dict(found["optimizer"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.pt"]


def test_the_newest_state_is_the_one_that_is_found(file: Path) -> None:
    Checkpoint(file, RUN).save(state(4))
    found = Checkpoint(file, RUN).load()
    assert found is not None and found["epoch"] == 4


def test_a_state_of_another_run_is_not_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Checkpoint(file, dict(reversed(RUN.items()))).load() is not None
    assert Checkpoint(file, {**RUN, "seed": 1}).load() is None
    monkeypatch.setattr(torch, "__version__", "0.0.1")
    assert Checkpoint(file, RUN).load() is None


def test_a_cleared_state_is_not_found(file: Path) -> None:
    Checkpoint(file, RUN).clear()
    assert not file.exists()
    assert Checkpoint(file, RUN).load() is None
    Checkpoint(file, RUN).clear()


def test_without_a_file_nothing_is_kept() -> None:
    checkpoint = Checkpoint(None, RUN)
    checkpoint.save(state())
    assert checkpoint.load() is None
    checkpoint.clear()


def test_a_truncated_or_altered_file_is_ignored(file: Path) -> None:
    whole = file.read_bytes()
    for length in (0, 5, len(MAGIC), len(MAGIC) + 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert Checkpoint(file, RUN).load() is None, length
    for place in range(0, len(whole), 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert Checkpoint(file, RUN).load() is None, place
    file.write_bytes(whole)
    assert Checkpoint(file, RUN).load() is not None


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def sealed(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).digest() + payload


def torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap, file = tmp_path / "trap", tmp_path / "run.pt"
    run = f"torch {torch.__version__}, {Checkpoint(None, RUN).identity}"
    for payload in (
        pickle.dumps(Hostile(trap)),
        torch_bytes(Hostile(trap)),
        torch_bytes({"run": run, "state": {"model": Hostile(trap)}}),
    ):
        file.write_bytes(sealed(payload))
        assert Checkpoint(file, RUN).load() is None
    assert not trap.exists()


@pytest.mark.parametrize("value", [7, [], {"run": 1}, {"run": torch.ones(2)}, "plain", None])
def test_a_foreign_file_is_ignored(tmp_path: Path, value: Any) -> None:
    for content in (torch_bytes(value), sealed(torch_bytes(value)), sealed(b"hello"), b"hello"):
        (tmp_path / "run.pt").write_bytes(content)
        assert Checkpoint(tmp_path / "run.pt", RUN).load() is None
    assert Checkpoint(tmp_path, RUN).load() is None


def test_a_state_that_could_not_be_read_again_is_not_saved(file: Path) -> None:
    with pytest.raises(TypeError, match="a checkpoint holds tensors, numbers, texts and None, not PosixPath"):
        Checkpoint(file, RUN).save({"model": {"path": Path()}})
    assert Checkpoint(file, RUN).load() is not None


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            errno.ENOSPC,
            "must have room, not a full disk; free some and run again: "
            "the training goes on after the last epoch that was saved",
        ),
        (errno.EACCES, "must be writable, not refuse (Permission denied); choose another file"),
    ],
)
def test_a_disk_that_is_full_or_refuses_is_said_and_the_state_before_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch, code: int, text: str
) -> None:
    def refuse(path: Path, content: bytes) -> int:
        with path.open("wb") as part:
            part.write(content[:100])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ConfigError) as error:
        Checkpoint(file, RUN).save(state(4))
    assert str(error.value) == f"checkpoint: '{file}' {text}"
    found = Checkpoint(file, RUN).load()
    assert found is not None and found["epoch"] == 3
    assert [path.name for path in file.parent.iterdir()] == ["run.pt"]
