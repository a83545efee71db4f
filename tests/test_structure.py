"""The dependency rule: cli -> pipeline -> stages -> shared modules -> types and errors; one home a library."""

import ast
import subprocess
import sys
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
    {"cli", "pytest_plugin"},
    {"progress", "doctor", "fit", "golden", "deployment"},
    {"pipeline"},
    {"manifest"},
    {"hardware_steps"},
    {"steps"},
    {"model_source", "pricing"},
    {"config"},
    STAGES,
    {"toolchains"},
    {"estimate", "finn", "narrow", "lower"},
    {
        "fixed",
        "fuse",
        "training",
        "channels",
        "lsb",
        "qonnx_graph",
        "onnx_model",
        "store",
        "objects",
        "remote",
        "verilator",
        "checkpoint",
        "data",
        "networks",
    },
    {"network", "plan", "boards", "names", "folding", "bitstream", "handoff"},
    {"resources"},
    {"types", "errors"},
]
HOMES = {
    "hls4ml": {"convert"},
    "brevitas": {"quantize"},
    "nncodec": {"compress"},
    "qonnx": {"qonnx_graph", "finn"},
    "finn": {"finn"},
    "onnx": {"qonnx_graph", "onnx_model", "finn"},
    "onnxruntime": {"qonnx_graph", "onnx_model"},
    "sklearn": {"data"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "pytest": {"pytest_plugin"},
    "pyosys": {"toolchains"},
    "serial": {"deploy"},
    "subprocess": {"plan"},
}
MODULES = sorted(
    path.relative_to(PACKAGE)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py" or path.parent != PACKAGE
)


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def level(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_downwards_only(path: Path) -> None:
    for name in imports(path):
        if name.startswith("flow."):
            target = name.split(".")[1]
            if target != room(path) and (PACKAGE / target).exists() | (PACKAGE / f"{target}.py").exists():
                assert level(room(path)) <= level(target), f"{path} must not import {name}"
                assert not (room(path) in STAGES and target in STAGES), (
                    f"stage {path} must not import stage {target}"
                )


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_each_library_has_one_home(path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        if top in HOMES:
            assert room(path) in HOMES[top], f"{path} must not import {top}"


def test_every_module_has_its_place_in_the_layers() -> None:
    known = set().union(*LAYERS)
    assert {room(path) for path in MODULES} <= known


def test_importing_flow_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "hls4ml", "onnx", "rich")
    code = f"import sys, flow, flow.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_has_a_readme() -> None:
    folders = [
        ROOT,
        *(
            ROOT / name
            for name in ("flow", "hls_templates", "boards", "tests", "notebooks", "benchmarks", "docs")
        ),
    ]
    folders += [path.parent for path in PACKAGE.rglob("__init__.py")]
    missing = sorted(
        str(folder.relative_to(ROOT)) for folder in folders if not (folder / "README.md").is_file()
    )
    assert missing == []
