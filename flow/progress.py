"""Progress in a terminal: one bar a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flow.pipeline import Listener


@contextmanager
def show() -> Iterator[Listener]:
    """Show the stages as bars; give the listener for `flow.pipeline.run`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[text]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def listen(stage: str, event: str, done: int, total: int, text: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1, text="")
            task = tasks[stage]
            if event == "cached":
                text = "unchanged"
            if event == "done":
                bars.update(task, total=1, completed=1)
            elif event == "start":
                bars.update(task, total=None, text="")
            else:
                bars.update(task, total=total, completed=done, text=text)
            if event in ("done", "cached"):
                bars.update(task, completed=1, total=1, text=text or "done")
                bars.stop_task(task)

        yield listen
