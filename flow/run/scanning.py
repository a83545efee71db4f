"""A scan of the trained network of a config's run."""

from __future__ import annotations

from pathlib import Path

import torch

from flow import network
from flow.config import load
from flow.errors import ConfigError
from flow.prune.scan import Scan, scan
from flow.run import pipeline, steps
from flow.run.model_source import enters_quantized
from flow.run.pipeline import Listener
from flow.training.data import load as load_data


def scan_run(path: Path | None, ratios: tuple[float, ...], listener: Listener) -> Scan:
    """Scan the trained network of a config's run; train it where no run has done so yet.

    Raises:
        ConfigError: the network is quantized already; or see `flow.run.pipeline.run` and `flow.prune.scan.scan`.
    """
    config = load(path)
    if enters_quantized(config):
        raise ConfigError(
            "scan: network must be a float one, not a quantized file; name the network that it was made of"
        )
    folder = pipeline.run(path, last="train", listener=listener, keep_report=True).path.parent
    steps.use_threads(config.threads)
    data = load_data(**config.options("data"), seed=config.seed, base=config.base)
    options = {k: v for k, v in config.options("prune").items() if k in ("criterion", "ignored_layers")}
    made = scan(
        network.load(folder / "train"),
        torch.from_numpy(data.train[0][:2]),
        data=data,
        ratios=ratios,
        seed=config.seed,
        progress=lambda done, total, text: listener("scan", "progress", done, total, text),
        **options,
    )
    listener("scan", "done", 1, 1, "")
    return made
