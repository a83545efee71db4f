"""Running the stages: the pipeline, its steps, the store of their results, and what a run measured."""

from flow.run.pipeline import run

__all__ = ["run"]
