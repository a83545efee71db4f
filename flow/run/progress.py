"""Progress in a terminal: one bar a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flow.run.pipeline import Listener


@contextmanager
def show() -> Iterator[Listener]:
    """Show the stages as bars; give the listener for `flow.run.pipeline.run`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[text]}"),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def listen(stage: str, event: str, done: int, total: int, text: str) -> None:
        if stage not in tasks:
            bars.start()  # not before: an error in front of all work stays one line
            tasks[stage] = bars.add_task(stage, total=None, text="")
        task = tasks[stage]
        if event == "start" and text:
            bars.console.print(f"{stage}: {text}", highlight=False, markup=False, soft_wrap=True)
        if event == "progress":
            bars.update(task, total=total, completed=done, text=text)
        elif event in ("done", "cached"):
            bars.update(task, total=1, completed=1, text="unchanged" if event == "cached" else "done")
            bars.stop_task(task)

    try:
        yield listen
    finally:
        if tasks:
            bars.stop()
