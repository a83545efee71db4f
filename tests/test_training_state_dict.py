"""Checkpoints of the user's: damaged, foreign and unfit ones are refused by what is wrong with them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flow.errors import ConfigError
from flow.training.state_dict import load_state_dict

ADVICE = "save it with torch.save(model.state_dict(), file)"
ELSE = "[model]: checkpoint 'w.pt' must be a plain state dict, not hold anything else"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def saved(tmp_path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, tmp_path / "w.pt", **options)
    return tmp_path / "w.pt"


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_state_dict(network(), path)
    return str(error.value)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_a_state_dict_is_loaded(tmp_path: Path, kind: torch.dtype) -> None:
    state = {
        name: value.to(kind) if value.is_floating_point() else value
        for name, value in network(1).half().state_dict().items()
    }
    model = network()
    load_state_dict(model, saved(tmp_path, state))
    assert same(model, network(1).half().float())


def test_every_kind_of_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, network(1).state_dict())
    whole = path.read_bytes()
    rng, refusals = np.random.default_rng(0), 0
    for bit in rng.integers(8 * len(whole), size=300):
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        model = network()
        try:
            load_state_dict(model, path)
        except ConfigError:
            refusals += 1
        else:
            assert same(model, network(1))
    assert refusals > 100


def test_a_flipped_weight_is_told_with_the_part_of_the_file(tmp_path: Path) -> None:
    state = network(1).state_dict()
    path = saved(tmp_path, state)
    weights = state["0.weight"].numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
    assert refused(path) == (
        f"[model]: checkpoint 'w.pt' must be whole, not damaged in 'w/data/0'; copy it again, or {ADVICE}"
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path, network().state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert refused(path) == f"{ELSE} (BadZipFile); {ADVICE}"


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"0.weight": torch.zeros(1_000_000)})
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    unpacked = sum(len(content) for _, content in parts)
    assert refused(path) == f"{ELSE} ({unpacked:,} bytes in {path.stat().st_size:,}); {ADVICE}"


def test_a_file_of_old_torch_has_no_checksums_and_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, network().state_dict(), _use_new_zipfile_serialization=False)
    assert refused(path) == (
        "[model]: checkpoint 'w.pt' must be a file of torch >= 1.6, not a file without checksums, as torch < 1.6 "
        "wrote; convert it with torch.save(torch.load(file), new_file)"
    )


def test_safetensors_are_told_how_to_convert(tmp_path: Path) -> None:
    head = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "w.pt").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    assert refused(tmp_path / "w.pt") == (
        "[model]: checkpoint 'w.pt' must be a file of torch >= 1.6, not safetensors; convert it with "
        "torch.save(safetensors.torch.load_file(file), new_file)"
    )


class Trap:
    def __reduce__(self) -> Any:
        return print, ("the pickle ran",)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1: torch.zeros(2)}, "the name 1"),
        ({None: torch.zeros(2)}, "the name None"),
        ({("a" * 100, 1): torch.zeros(2)}, "the name ('" + "a" * 38),
        ([torch.zeros(2)], "list"),
        (torch.zeros(2), "Tensor"),
        (None, "NoneType"),
        (7, "int"),
        ({"0.weight": [1.0]}, "dict"),
        ({"0.weight": None}, "dict"),
        ({"0.weight": torch.zeros(2), "epoch": 3}, "dict"),
        ({"0.weight": Trap()}, "UnpicklingError"),
        (Trap(), "UnpicklingError"),
        (OrderedDict(a=pickle.dumps(Trap())), "OrderedDict"),
        (
            {"0.weight": torch.zeros(4, 6).to_sparse()},
            "a tensor '0.weight' that is sparse, quantized or empty of numbers",
        ),
        (
            {"0.weight": torch.zeros(4, 6, device="meta")},
            "a tensor '0.weight' that is sparse, quantized or empty of numbers",
        ),
        (
            {"0.weight": torch.quantize_per_tensor(torch.zeros(4, 6), 0.1, 0, torch.qint8)},
            "a tensor '0.weight' that is sparse, quantized or empty of numbers",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_no_dict_of_tensors_by_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: Any, told: str
) -> None:
    assert refused(saved(tmp_path, value)) == f"{ELSE} ({told}); {ADVICE}"
    assert capsys.readouterr().out == ""


def nested(depth: int) -> bytes:
    """Return a file of torch's whose pickle is a list in a list in a list."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
        archive.writestr("w/version", "3\n")
        archive.writestr("w/byteorder", "little")
    return file.getvalue()


@pytest.mark.parametrize("depth", [10, 100_000])
def test_a_deeply_nested_pickle_is_refused(tmp_path: Path, depth: int) -> None:
    (tmp_path / "w.pt").write_bytes(nested(depth))
    assert refused(tmp_path / "w.pt").startswith(ELSE)


def test_a_state_dict_within_more_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"epoch": torch.tensor(3), "model": network().state_dict()})
    assert refused(path) == (
        "[model]: checkpoint 'w.pt' must be a plain state dict, not hold one under 'model'; convert it with "
        "torch.save(torch.load(file)['model'], new_file)"
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "net."])
def test_a_wrappers_prefix_is_told_how_to_strip(tmp_path: Path, prefix: str) -> None:
    path = saved(tmp_path, {prefix + name: value for name, value in network(1).state_dict().items()})
    message = refused(path)
    command = (
        "torch.save({name.removeprefix("
        f"{prefix!r}): value for name, value in torch.load(file).items()}}, new_file)"
    )
    assert message == (
        f"[model]: checkpoint 'w.pt' must have the network's names, not {prefix!r} before each, as DataParallel and "
        f"torch.compile put it; convert it with {command}"
    )
    exec(command, {"torch": torch, "file": path, "new_file": tmp_path / "new.pt"})
    model = network()
    load_state_dict(model, tmp_path / "new.pt")
    assert same(model, network(1))


@pytest.mark.parametrize(
    ("name", "kind", "due", "told"),
    [
        ("0.weight", torch.complex64, "floating-point", "complex"),
        ("0.weight", torch.int64, "floating-point", "int64"),
        ("0.weight", torch.bool, "floating-point", "bool"),
        ("1.num_batches_tracked", torch.float32, "int64", "floating-point"),
    ],
)
def test_numbers_of_another_kind_are_refused(
    tmp_path: Path, name: str, kind: torch.dtype, due: str, told: str
) -> None:
    state = network(1).state_dict()
    path = saved(tmp_path, state | {name: state[name].to(kind)})
    assert refused(path) == (
        f"[model]: checkpoint 'w.pt' must hold {name!r} as {due} numbers, not {told} ones; correct source or checkpoint"
    )


def test_other_names_and_shapes_are_told(tmp_path: Path) -> None:
    state = network(1).state_dict()
    huge = torch.zeros(1).expand(10**15)  # a tensor that says it is large, and has one number
    for changed, told in (
        (state | {"0.bias": torch.zeros(5)}, "size mismatch for 0.bias: copying a param with shape"),
        (state | {"3.bias": torch.zeros(4)}, 'Unexpected key(s) in state_dict: "3.bias".'),
        ({name: state[name] for name in list(state)[1:]}, 'Missing key(s) in state_dict: "0.weight".'),
        (state | {"0.bias": huge}, "size mismatch for 0.bias: copying a param with shape"),
        ({}, 'Missing key(s) in state_dict: "0.weight"'),
    ):
        message = refused(saved(tmp_path, changed))
        assert message.startswith(f"[model]: checkpoint 'w.pt' must fit the network, not differ: {told}")


@pytest.mark.parametrize("name", ["none.pt", "a" * 300, "a\0b", "."])
def test_a_name_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert refused(path) == (
        f"[model]: checkpoint must be an existing file, not {str(path)!r}; correct the config"
    )
