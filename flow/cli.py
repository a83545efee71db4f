"""The command ``flow``: a thin face over the pipeline."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flow.files import finite, json_text

app = typer.Typer(
    help="From a trained network to a proven bitstream: prune, simplify, quantize, compress, convert, "
    "emulate, synthesize.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Config = Annotated[
    Path | None,
    typer.Argument(help="A flow.toml, or the word demo for the digits; default: this folder's flow.toml."),
]
Out = Annotated[Path | None, typer.Option(help="Output folder; default runs/<name>.")]
Board = Annotated[str | None, typer.Option(help="In place of the config's.")]
First = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Build from here anew.")]
Last = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")]
Seed = Annotated[int | None, typer.Option(help="In place of the config's.")]
Toolchain = Annotated[
    str | None,
    typer.Option(help="vitis, or open: no vendor tool; default: the config's, or the board's first."),
]
Host = Annotated[
    str | None,
    typer.Option(metavar="LOGIN", help="Where Vitis HLS and Vivado run, such as user@workstation."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        import flow

        print(f"prune2bit {flow.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take what stands before a command."""


@app.command()
def run(
    config: Config = None,
    first: First = None,
    last: Last = None,
    out: Out = None,
    seed: Seed = None,
    board: Board = None,
    toolchain: Toolchain = None,
    host: Host = None,
    as_json: Json = False,
) -> None:
    """Run the stages on your network, from training to the bitstream.

    They are train, prune, simplify, quantize, compress, convert, emulate, synthesize. A stage whose inputs, options
    and versions are unchanged comes from the output folder.
    """
    from flow.run import pipeline

    config = _chosen(config, "run")
    chosen: dict[str, Any] = {"out": out, "first": first, "last": last, "seed": seed, "board": board}
    given = {"toolchain": toolchain, "host": host}
    options = {"synthesize": {key: value for key, value in given.items() if value}}
    if as_json:
        manifest = pipeline.run(config, options=options, **chosen)
        print(json_text(manifest.values))
        return
    from flow.run.progress import show

    with show() as listener:
        manifest = pipeline.run(config, options=options, listener=listener, **chosen)
    from rich.console import Console

    from flow.report import table

    console = Console()
    console.print(table(manifest.values))
    console.print(f"report: {manifest.path.parent / 'report.html'}", soft_wrap=True, highlight=False)


@app.command()
def demo(
    first: First = None,
    last: Last = None,
    out: Out = None,
    seed: Seed = None,
    board: Board = None,
    toolchain: Toolchain = None,
    host: Host = None,
    as_json: Json = False,
) -> None:
    """Run the stages on scikit-learn's digits: about a minute.

    The same as: flow run demo. The other commands take the word demo in place of a config, too.
    """
    run(_DEMO, first, last, out, seed, board, toolchain, host, as_json)


@app.command()
def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("flow.toml")) -> None:
    """Write a commented flow.toml to start from."""
    from flow.doctor import write_example

    write_example(path)
    print(f"{path} written; edit it, then: flow run{'' if path == _CONFIG else f' {path}'}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """List every tool: version, path and what needs it."""
    from shutil import get_terminal_size
    from textwrap import fill

    from flow.doctor import tools

    rows = tools()
    if as_json:
        print(json_text(rows))
        return
    for row in rows:
        found = (row["version"] or "not found", *([row["path"]] if row["path"] else []))
        print("  ".join((row["name"], *found)))
        print(fill(row["use"], get_terminal_size().columns, initial_indent="    ", subsequent_indent="    "))


@app.command()
def boards(as_json: Json = False) -> None:
    """List the boards with part, resources and tool chains."""
    from flow.doctor import board_rows

    rows = board_rows()
    if as_json:
        print(json_text(rows))
        return
    columns = ("name", "part", "luts", "flip_flops", "dsps", "bram_kibit", "toolchains")
    shown = [
        [f"{row[c]:,}" if isinstance(row[c], int) else row[c].replace(",", "") for c in columns]
        for row in rows
    ]
    _table(("board", "part", "LUT", "FF", "DSP", "BRAM\nKib", "tools"), shown, right=(2, 3, 4, 5))


@app.command()
def emulate(
    config: Config = None,
    layers: Annotated[bool, typer.Option("--layers", help="Layer by layer, not only the outputs.")] = False,
    rtl: Annotated[bool, typer.Option("--rtl", help="The Verilog too, clock by clock (Verilator).")] = False,
    vcd: Annotated[bool, typer.Option("--vcd", help="With --rtl: waveforms of two frames.")] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Prove that the C++, and the Verilog, compute what torch does.

    Compares torch, the QONNX file, the integers, the C++ and, with --rtl, the Verilog in LSBs. Stages that are done
    come from the output folder. A difference ends it with exit status 1; --layers lists the layers before it.
    """
    from dataclasses import asdict

    from flow.errors import MismatchError
    from flow.report import chain
    from flow.run import pipeline
    from flow.run.progress import show
    from flow.types import LayerCheck

    config = _chosen(config, "emulate")
    options = {"emulate": {"rtl": True, "vcd": vcd}} if rtl or vcd else None
    try:
        if as_json:
            values = pipeline.run(config, out=out, last="emulate", options=options).values
        else:
            with show() as listener:
                run = pipeline.run(config, out=out, last="emulate", options=options, listener=listener)
                values = run.values
    except MismatchError as error:
        before = [asdict(layer) for layer in error.layers if isinstance(layer, LayerCheck)]
        if layers and before and not as_json:
            _table(chain.HEADS, chain.rows(before), right=chain.RIGHT)
        raise
    emulation, hops = values["emulation"], values["equality"]["hops"]
    if as_json:
        print(json_text({"hops": hops, **emulation}))
        return
    if layers:
        _table(chain.HEADS, chain.rows(emulation["layers"]), right=chain.RIGHT)
    print("\n".join(chain.summary(hops, emulation)))


@app.command()
def deploy(
    config: Config = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="LOGIN", help="A board with Vivado's bitstream, such as xilinx@pynq."),
    ] = None,
    serial: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="A board with an open bitstream, such as /dev/ttyUSB0."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="How many; default: all golden ones.")] = None,
    timeout_s: Annotated[float | None, typer.Option(help="Limit of the self-test, or of an answer.")] = None,
    baud: Annotated[int | None, typer.Option(help="Of the serial line; default: the build's.")] = None,
    ssh_config: Annotated[str | None, typer.Option(help="In place of OpenSSH's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's output folder; default runs/<name>.")] = None,
    as_json: Json = False,
) -> None:
    """Run golden samples on a board and compare every result.

    With --host, the bundle of a vendor build is copied over ssh, programs the board and tests itself. With --serial,
    the board holds the bitstream of a run with --toolchain open. With neither, the bundle is written for you to copy.
    The run's report shows the result.
    """
    from contextlib import nullcontext
    from dataclasses import asdict

    from flow.deploy import text
    from flow.run.deployment import deploy_run
    from flow.run.progress import show

    config = _chosen(config, "deploy")
    with nullcontext() if as_json else show() as listener:
        tell = listener or (lambda *_: None)
        source, done = deploy_run(
            config,
            out=out,
            serial=serial,
            host=host,
            baud=baud,
            samples=samples,
            timeout_s=timeout_s,
            ssh_config=ssh_config,
            progress=lambda count, total, words: tell("deploy", "progress", count, total, words),
        )
        tell("deploy", "done", 1, 1, "")
    if as_json:
        print(json_text(asdict(done) if done else {"bundle": str(source)}))
    elif done:
        print(text(done))
    else:
        print(f"bundle: {source}\ncopy it to the board; there, as root: python3 selftest.py")


@app.command()
def bitstream(
    path: Annotated[Path, typer.Argument(help="A .bit file of Vivado's.")],
    board: Annotated[str | None, typer.Option(help="Refuse it unless it is for this board's part.")] = None,
    as_json: Json = False,
) -> None:
    """Describe a bitstream and check that it is whole.

    Prints the part and the design, and checks length, packets and checksum.
    """
    from dataclasses import asdict

    from flow.boards import load
    from flow.toolchains.vitis import bitstream as bits

    found = bits.read(path, subject="flow")
    if board is not None:
        bits.check_part(found, load(board).part, subject="flow")
    if as_json:
        print(json_text({**asdict(found), "path": str(path)}))
        return
    checked = "right" if found.crc_checked else "not there, or not checked for this chip"
    words = "" if found.frame_words is None else f", {found.frame_words:,} words of frames"
    _table(
        ("", ""),
        [
            ["design", found.design],
            ["part", found.part],
            ["made", f"{found.date} {found.time}, Vivado {found.tool_version}"],
            ["data", f"{found.size_bytes:,} bytes{words}"],
            ["checksum", checked],
            ["SHA-256", found.sha256],
        ],
    )


@app.command()
def fit(
    target_fps: Annotated[float, typer.Option(help="Samples a second.")],
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A flow.toml, an ONNX or QONNX file, a run's folder, or the word demo; "
            "default: this folder's flow.toml."
        ),
    ] = None,
    board: Board = None,
    io_type: Annotated[str | None, typer.Option(help="io_stream or io_parallel; default: what fits.")] = None,
    weight_bits: Annotated[int | None, typer.Option(help="Assumed, for a float network.")] = None,
    activation_bits: Annotated[int | None, typer.Option(help="Assumed, for a float network.")] = None,
    write: Annotated[Path | None, typer.Option(help="A flow.toml to put the design into.")] = None,
    finn: Annotated[
        bool, typer.Option("--finn", help="Also FINN's estimates of a quantized network; see docs/finn.md.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find a design that fits a board at a rate, by estimate.

    Chooses reuse factors, strategy and io type; trains and synthesizes nothing. If the network does not fit, lists the
    missing resources and what would fix it, and exits with 1.
    """
    from tempfile import TemporaryDirectory

    from flow.fit import beside, text
    from flow.fit import fit as fit_network
    from flow.fit.writing import check_target
    from flow.fit.writing import write as write_fit

    if write is not None:
        check_target(write)
    made = fit_network(
        _chosen(source, "fit"),
        target_fps=target_fps,
        board=board,
        io_type=io_type,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
    )
    theirs = None
    if finn:
        with TemporaryDirectory() as folder:
            theirs = beside.finn_report(made, Path(folder))
    if as_json:
        print(json_text(text.as_json(made) | ({"finn": theirs.values()} if theirs else {})))
    else:
        print(text.head(made))
        _table(text.HEADS, text.rows(made), right=(2, 4, 5, 6, 7, 8))
        print(text.foot(made))
        if theirs:
            print()
            _table(beside.HEADS, beside.rows(theirs), right=(2, 3, 4, 5))
    if write is not None:
        write_fit(made, write)
    if not made.fits:
        raise typer.Exit(1)


@app.command()
def finn(
    source: Annotated[
        Path | None,
        typer.Argument(help="A flow.toml, a QONNX file, or the word demo; default: this folder's flow.toml."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; default runs/<name>/finn.")] = None,
    board: Board = None,
    target_fps: Annotated[int | None, typer.Option(help="Samples a second to fold for.")] = None,
    folding: Annotated[Path | None, typer.Option(help="FINN's folding_config_file.")] = None,
    requirements: Annotated[
        bool, typer.Option("--requirements", help="Print what pip installs into FINN's environment.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask finn-plus whether FINN takes the quantized network.

    Prints the verdict of each of FINN's steps, and its estimates. If a step refuses, exits with 1.
    """
    from flow import finn as stage
    from flow.boards import DEFAULT
    from flow.boards import load as load_board
    from flow.finn import text

    if requirements:
        print(stage.REQUIREMENTS)
        return
    source = _chosen(source, "finn")
    stage.require_environment()
    file, name, chosen, clock = source, source.stem if source else "", board or DEFAULT, None
    if source is None or source.suffix != ".onnx":
        from flow.config import load
        from flow.run import pipeline

        config = load(source)
        name, chosen, clock = config.name, board or config.board, config.synth_clk_period_ns
        file = pipeline.run(source, last="quantize", keep_report=True).path.parent / "quantize" / "model.onnx"
    facts = load_board(chosen)
    period = clock or facts.clock_period_ns
    made = stage.finn(
        Path(str(file)),
        out=out or Path("runs") / name / "finn",
        part=facts.part,
        clock_period_ns=period,
        target_fps=target_fps,
        folding=folding,
    )
    if as_json:
        print(json_text(made.values()))
    else:
        _table(text.STEP_HEADS, text.step_rows(made))
        _table(text.LAYER_HEADS, text.layer_rows(made), right=(2, 3, 4, 5))
        print(text.foot(made, period))
    if not made.accepted:
        raise typer.Exit(1)


@app.command()
def scan(
    config: Config = None,
    out: Annotated[
        Path | None, typer.Option(help="The plot, .svg or .png; default runs/<name>/scan.svg.")
    ] = None,
    ratios: Annotated[str | None, typer.Option(help="Shares to remove; default 0.1,0.2,...,0.9.")] = None,
    max_drop: Annotated[float, typer.Option(help="Accuracy that a layer may cost, for the advice.")] = 0.01,
    as_json: Json = False,
) -> None:
    """Measure and plot what pruning each layer alone costs.

    Measures on the validation samples, with the run's trained network. If no run has trained it yet, trains it first.
    """
    from contextlib import nullcontext
    from dataclasses import asdict

    from flow.config import load
    from flow.prune.drawing import check_suffix
    from flow.prune.scan import RATIOS, check_drop, check_ratios
    from flow.run.progress import show
    from flow.run.scanning import scan_run

    config = _chosen(config, "scan")
    plot = out or Path("runs") / load(config).name / "scan.svg"
    check_suffix(plot)
    check_drop(max_drop)
    shares = check_ratios(_numbers(ratios) if ratios is not None else RATIOS)
    with nullcontext() if as_json else show() as listener:
        made = scan_run(config, shares, listener or (lambda *_: None))
    made.plot(plot)
    advice = made.suggested(max_drop)
    if as_json:
        print(json_text({**finite(asdict(made)), "suggested": advice, "plot": str(plot)}))
        return
    from rich.console import Console

    print("validation accuracy in %, by the share of channels removed from one class of layers:\n")
    Console().print(made.table(), highlight=False)
    print(f"\nplot: {plot}\n\nat most {max_drop:.3g} of accuracy lost, each layer by itself:\n")
    print("[prune.pruning_ratio_dict]")
    print("\n".join(f"{json.dumps(layer)} = {ratio}" for layer, ratio in advice.items()))


_CONFIG = Path("flow.toml")
_DEMO = Path("demo")


def _chosen(given: Path | None, command: str) -> Path | None:
    """Return what a command works on: what was named, else this folder's flow.toml; ``None``: the demo."""
    from flow.errors import ConfigError

    if given is not None:
        return None if given == _DEMO else given
    if not _CONFIG.is_file():
        digits = "flow demo runs" if command == "run" else f"flow {command} demo takes"
        raise ConfigError(
            f"{command}: a config must be named where the folder has no flow.toml, not left out; flow init writes one, "
            f"{digits} the digits"
        )
    print(f"{command}: takes this folder's flow.toml", file=sys.stderr)
    return _CONFIG


def _numbers(text: str) -> tuple[float, ...]:
    from flow.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"scan: ratios must be numbers with commas between them, not {text!r}; write 0.25,0.5"
        ) from error


def _table(heads: tuple[str, ...], rows: list[list[str]], right: tuple[int, ...] = ()) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, head in enumerate(heads):
        last = index == len(heads) - 1
        table.add_column(
            head, justify="right" if index in right else "left", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False)


def main() -> None:
    """Run the command; errors of the flow are one message and exit status 1."""
    from flow.build.signals import stoppable

    stoppable(_told)


def _told() -> None:
    from flow.errors import FlowError

    try:
        app()
    except FlowError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
