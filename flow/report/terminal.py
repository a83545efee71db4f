"""The report's facts as a compact summary for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flow.report import text
from flow.report.equality import DIFFERS, NOT_RUN
from flow.report.hardware import Hardware
from flow.report.layers import COLUMNS, Cell, Layers
from flow.report.pruning import NOT_MET, Pruning
from flow.report.quantization import CHOSEN, Quantization
from flow.report.storage import Storage
from flow.report.view import View, view

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

BAR_CELLS = 20
COSTS_SHOWN = 4  # columns of a search that fit beside the widths
SIZES = ("channels", "parameters", "MACs")
SHORT = {"bits a weight": "bits/w", "bits an activation": "bits/a", "reuse factor": "reuse"}
HARDWARE = tuple(title for title, *_ in COLUMNS if title not in SIZES)
QUIET = (text.MISSING, "not synthesized yet", "not reported")


def table(manifest: Mapping[str, Any]) -> Group:
    """Return a run's summary for ``rich.print``; it fits 80 columns.

    Args:
        manifest: as ``flow.report.render`` takes it.
    """
    from rich.console import Group
    from rich.text import Text

    seen = view(manifest)
    title = Text(seen.name, style="bold")
    for part in (seen.date, seen.board):
        title.append(f"  {part}" if part else "", style="dim")
    parts: list[Any] = [title, Text(seen.headline), Text()]
    parts += [_accuracy(seen), Text()] if seen.accuracies else []
    for titles in (SIZES, HARDWARE):
        shown = _layers(seen.layers, titles) if seen.layers else None
        parts += [shown, Text()] if shown else []
    parts += [*_pruning(seen.pruning), Text()] if seen.pruning else []
    parts += [*_quantization(seen.quantization), Text()] if seen.quantization else []
    parts += [_equality(seen), Text(), _budget(seen)]
    parts += [Text(), *_synthesized(seen.synthesized)] if seen.synthesized else []
    if seen.budget.command:
        tools = (
            f"{', '.join(seen.budget.missing_tools)} not found here; " if seen.budget.missing_tools else ""
        )
        parts.append(Text(f"{tools}to synthesize, run on a workstation:", style="dim"))
        parts.append(Text(f"  {seen.budget.command}", no_wrap=True, overflow="fold"))
    elif seen.budget.missing_tools:
        parts.append(Text(seen.budget.notes[-1], style="dim"))
    parts += [Text(), *_storage(seen.storage)] if seen.storage else []
    parts += [Text(), _time(seen)] if seen.durations or seen.total_seconds else []
    return Group(*parts)


def _table(titles: Sequence[str], left: int = 1) -> Table:
    """Start a table without frames; the first ``left`` columns are left-aligned, the others right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), header_style="dim")
    for index, title in enumerate(titles):
        made.add_column(title, justify="left" if index < left else "right", overflow="fold")
    return made


def _figure(figure: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(figure, style="dim italic" if figure in QUIET else style)


def _pair(cell: Cell) -> Any:
    from rich.text import Text

    made = Text()
    if cell.before is not None:
        made.append(f"{cell.before} → ", style="dim")
    return made.append_text(_figure(cell.after))


def _accuracy(seen: View) -> Table:
    made = _table(("after", "accuracy", "points"))
    for row in seen.accuracies.rows if seen.accuracies else ():
        made.add_row(_figure(row.stage), _figure(row.figure), _figure(row.difference))
    return made


def _layers(layers: Layers, titles: Collection[str]) -> Table | None:
    """Show some columns; sizes and hardware stand one below the other, so that neither wraps."""
    chosen = [index for index, title in enumerate(layers.columns) if title in titles]
    if not chosen:
        return None
    made = _table(("layer", *(SHORT.get(layers.columns[index], layers.columns[index]) for index in chosen)))
    for row in layers.rows:
        made.add_row(_figure(row.name), *(_pair(row.cells[index]) for index in chosen))
    made.add_section()
    totals = (_pair(layers.total.cells[index]) for index in chosen)
    made.add_row(_figure("total"), *totals, style="bold")
    return made


def _synthesized(made: Hardware) -> list[Any]:
    """Show what yosys made of each layer; the notes stand in the page."""
    shown = _table(("synthesized", *made.columns))
    for row in made.rows:
        shown.add_row(_figure(row.name), *(_pair(cell) for cell in row.cells))
    shown.add_section()
    for row in made.totals:
        shown.add_row(_figure(row.name), *(_pair(cell) for cell in row.cells))
    return [shown]


def _pruning(pruned: Pruning) -> list[Any]:
    """Show what was not the usual, and the figures with the budget that some of them had."""
    parts: list[Any] = [_facts("pruning", pruned.facts)] if pruned.facts else []
    if pruned.figures:
        made = _table(("", "before", "after", *(("budget", "") if pruned.budgeted else ())))
        for row in pruned.figures:
            limit = f"≤ {row.limit}" if row.limit else ""
            state = _figure(row.state, "bold red" if row.state == NOT_MET else "green")
            cells = (_figure(limit), state) if pruned.budgeted else ()
            made.add_row(_figure(row.title), _figure(row.before), _figure(row.after), *cells)
        parts.append(made)
    return parts


def _quantization(quantized: Quantization) -> list[Any]:
    """Show the options, and of a search the points that no other beats."""
    parts: list[Any] = [_facts("quantization", quantized.facts)] if quantized.facts else []
    if found := quantized.search:
        made = _table(("weights/activations", *found.columns[:COSTS_SHOWN], ""))
        for point in found.points:
            mark, style = (point.state, "bold") if point.state == CHOSEN else ("", "")
            made.add_row(
                _figure(point.bits, style),
                *(_figure(cell, style) for cell in point.cells[:COSTS_SHOWN]),
                _figure(mark, "bold green"),
            )
        parts.append(made)
        if found.beaten:
            parts.append(_figure(f"and {len(found.beaten)} more, beaten in accuracy and cost", "dim"))
        parts += [_figure(found.note, "dim")] if found.note else []
    return parts


def _facts(title: str, facts: Sequence[tuple[str, str]]) -> Any:
    return _figure(f"{title}: {'; '.join(f'{name} {value}' for name, value in facts)}")


def _equality(seen: View) -> Table:
    made = _table(("equality", "", "", "", "largest error", "over"), left=4)
    for hop in seen.equality.hops:
        style = {DIFFERS: "bold red", NOT_RUN: "dim"}.get(hop.state, "green")
        made.add_row(
            _figure(hop.left),
            _figure(hop.sign, style),
            _figure(hop.right),
            _figure(hop.state, style),
            _figure(hop.error),
            _figure(hop.samples),
        )
    return made


def _budget(seen: View) -> Any:
    from rich.console import Group

    made = _table(("budget", "design", "board", "share"))
    for use in seen.budget.uses:
        style = "bold red" if use.over else ""
        made.add_row(_figure(use.title), _figure(use.design), _figure(use.board), _figure(use.share, style))
    lines = [_figure(f"{name} {value}") for name, value in seen.budget.timing]
    return Group(made, *lines) if seen.budget.uses else Group(_figure(f"budget: {text.MISSING}"), *lines)


def _storage(stored: Storage) -> list[Any]:
    from rich.text import Text

    sizes = ", ".join(f"{size} {title}" for title, size in stored.sizes)
    lines = [f"weights: {sizes}"] if sizes else []
    return [Text(line, style="" if sizes else "dim") for line in (*lines, stored.note)]


def _time(seen: View) -> Table:
    made = _table(("time", "seconds", "", ""), left=1)
    made.columns[3].justify = "left"
    for row in seen.durations:
        blocks = "▇" * max(1, round(row.share * BAR_CELLS)) if row.picture else ""
        made.add_row(
            _figure(row.stage),
            _figure(row.figure),
            _figure("cached" if row.cached else "", "dim"),
            _figure(blocks, "dim" if row.cached else "cyan"),
        )
    if seen.total_seconds:
        made.add_section()
        made.add_row(_figure("total", "bold"), _figure(seen.total_seconds, "bold"), "", "")
    return made
