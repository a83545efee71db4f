"""The dependency rule: cli -> run -> stages -> shared rooms -> types, errors; strictly downwards, one home a library.

A room is a folder or a module at the top of ``flow/``. ``python tests/test_structure.py [FOLDER]`` counts rooms, arrows
and circles of any checkout's package, so that two states can be compared.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flow"
STAGES = {
    "train",
    "prune",
    "simplify",
    "quantize",
    "compress",
    "convert",
    "emulate",
    "synthesize",
    "deploy",
    "report",
}
LAYERS = [
    {"cli"},
    {"fit", "testing", "doctor"},
    {"run"},
    {"config"},
    STAGES,
    {"toolchains", "finn"},
    {"rtl", "estimate"},
    {"fixed"},
    {"qonnx"},
    {"onnx_model", "training"},
    {"network", "build", "boards"},
    {"files", "names", "resources", "demo"},
    {"types", "errors"},
]
"""From above to below: a room imports from lower layers alone, never from its own."""
HOMES = {
    "alkaid": "rtl",
    "brevitas": "quantize",
    "finn": "finn",
    "hls4ml": "convert",
    "jinja2": "report",
    "nncodec": "compress",
    "onnx": "onnx_model",
    "onnxruntime": "onnx_model",
    "platformdirs": "build",
    "pyosys": "toolchains",
    "pytest": "testing",
    "qonnx": "qonnx",
    "serial": "deploy",
    "sklearn": "training",
    "subprocess": "build",
    "typer": "cli",
}
ELSEWHERE = {"finn/worker.py"}
"""Runs in an environment of its own, where there is no flow: its imports are not the flow's."""
MOST_AT_THE_TOP = 14


def modules(package: Path) -> list[str]:
    """Return the package's files by relative path."""
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))


def room(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Return the dotted names that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = (
                ".".join(("flow", *file.parent.relative_to(file_package(file)).parts)) if node.level else ""
            )
            base = ".".join(filter(None, (home, node.module)))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def file_package(file: Path) -> Path:
    return next(parent for parent in file.parents if parent.name == "flow" and (parent / "cli.py").is_file())


def file_of(package: Path, name: str) -> str | None:
    """Return the file of the package that a dotted name lies in."""
    parts = name.split(".")[1:]
    while parts:
        stem = package.joinpath(*parts)
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return file.relative_to(package).as_posix()
        parts.pop()
    return None


def arrows(package: Path) -> dict[str, set[str]]:
    """Return the files that each file imports; the package's own ``__init__`` only says where names are."""
    found = {}
    for path in modules(package):
        names = (name for name in imports(package / path) if name.startswith("flow."))
        targets = {file_of(package, name) for name in names}
        if path not in ("__init__.py", "__main__.py"):
            found[path] = {target for target in targets if target not in (None, path)}
    return found


def of_rooms(files: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    found: dict[str, set[str]] = {room(path): set() for path in files}
    for path, targets in files.items():
        found[room(path)] |= {room(target) for target in targets} - {room(path)}
    return found


def circles(graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Return what lies on a circle: what is left when those that only point to, or only from, have gone."""
    left = {name: set(targets) & set(graph) for name, targets in graph.items()}
    while True:
        reached = set().union(*left.values()) if left else set()
        going = {name for name, targets in left.items() if not targets or name not in reached}
        if not going:
            return set(left)
        left = {name: targets - going for name, targets in left.items() if name not in going}


def counted(package: Path) -> dict[str, object]:
    files = arrows(package)
    rooms = of_rooms(files)
    return {
        "rooms": len(rooms),
        "arrows between rooms": sum(map(len, rooms.values())),
        "modules at the top": len(list(package.glob("*.py"))),
        "rooms on circles": sorted(circles(rooms)),
        "files on circles": sorted(circles(files)),
    }


FILES = arrows(PACKAGE)


def level(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_strictly_downwards(path: str) -> None:
    for target in FILES[path]:
        if room(target) != room(path):
            assert level(room(path)) < level(room(target)), f"{path} must not import {target}"


def test_nothing_runs_in_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
    assert circles(of_rooms(FILES)) == set()
    assert circles(FILES) == set()


@pytest.mark.parametrize("path", sorted(set(modules(PACKAGE)) - ELSEWHERE), ids=str)
def test_each_library_has_one_home(path: str) -> None:
    for name in imports(PACKAGE / path):
        top = name.split(".")[0]
        assert room(path) == HOMES.get(top, room(path)), f"{path} must not import {top}"


def test_the_house_stays_small() -> None:
    """Version 0.1.0 had 53 rooms with 284 arrows, 37 modules at the top, and circles of both rooms and files."""
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP
    assert set(of_rooms(FILES)) == set().union(*LAYERS)


def test_importing_flow_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "hls4ml", "onnx", "rich")
    code = f"import sys, flow, flow.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_has_a_readme() -> None:
    names = ("flow", "hls_templates", "boards", "tests", "notebooks", "benchmarks", "docs")
    folders = [ROOT, *(ROOT / name for name in names)]
    folders += [path.parent for path in PACKAGE.rglob("__init__.py")]
    missing = sorted(
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "README.md").is_file()
    )
    assert missing == []


if __name__ == "__main__":
    for what, figure in counted((Path(sys.argv[1]) / "flow") if len(sys.argv) > 1 else PACKAGE).items():
        print(f"{what}: {figure}")
