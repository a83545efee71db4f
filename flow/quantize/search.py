"""Mixed precision: the widths of every layer that cost least at a given accuracy, or do best within a budget."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flow import training
from flow.errors import ConfigError
from flow.estimate.network import Bits
from flow.quantize.build import CALIBRATION_SAMPLES, calibrated, traced
from flow.quantize.calibration import Calibration
from flow.quantize.options import Options
from flow.quantize.samples import arrays, check_samples
from flow.quantize.twin import quantized_copy, without_softmax
from flow.quantize.widths import Widths
from flow.training.checkpoint import Checkpoint
from flow.types import BitsPoint, Data, Precision, Progress, silent

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

BitsCost = Callable[["fx.GraphModule", Bits], Mapping[str, float]]
"""The figures of a network at these widths, such as LUTs and cycles."""
Knob = tuple[str, tuple[str, ...]]
"""A kind of width and the layers that must agree on it."""
State = dict[Knob, int]
_EPSILON = 1e-6


def search_bits(
    model: nn.Module,
    example: torch.Tensor,
    *,
    data: Data,
    cost: BitsCost,
    max_accuracy_drop: float | None = None,
    bit_budget: Mapping[str, float] | None = None,
    objective: str = "luts",
    candidate_bits: tuple[int, ...] = (2, 3, 4, 6, 8),
    layers: Mapping[str, Mapping[str, int]] = {},
    input_bits: int = 8,
    bias_bits: int = 16,
    scales: str = "power-of-two",
    per_channel: bool = False,
    calibration: str = "max",
    percentile: float = 99.9,
    bias_correction: bool = False,
    samples: int = 1000,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Precision:
    """Search the bits of weights and activations of every layer, by calibrated networks without fine-tuning.

    First every width of every layer by itself is measured, the others at the widest. Then, from the widest, the width
    goes down one step at a time where the loss rises least for what is saved; each network on the way is measured as it
    is, and a step that breaks the constraint is taken back. Within a budget: down until it is met, then up again where
    there is room and the measured loss falls.

    Args:
        model: a network without BatchNorm (see `flow.simplify`); it is not changed.
        example: an input with a batch dimension.
        data: training samples to calibrate with; the first ``samples`` validation samples are measured.
        cost: the figures at some widths, of ``objective`` or the budget's names; see `flow.estimate.budget`.
        max_accuracy_drop: below the float network's accuracy, in [0, 1). The least ``objective`` is searched.
        bit_budget: in its place, limits of figures of ``cost``. The best accuracy is searched.
        objective: the figure that must be small.
        candidate_bits: the widths to choose from, each in 1 to 16.
        layers: widths that are settled, by layer.
        input_bits, bias_bits, scales, per_channel, calibration, percentile, bias_correction: see `flow.quantize`.
        samples: of the validation set.
        seed: see `flow.quantize`.
        checkpoint: a file that takes what was measured; a search that finds its own there does not measure it again.
        progress: called after every measurement.

    Returns:
        The widths, ready for ``flow.quantize(layers=...)``, and everything that was measured.

    Raises:
        ConfigError: an option is out of range, or no choice holds the constraint (it says how far the search got).
        UnsupportedError: a layer that quantize does not take.

    Source: greedy descent by sensitivity, as in Dong et al., "HAWQ", ICCV 2019, with measured losses for the Hessian.
    """
    given = locals()
    options = Options(**{field.name: given[field.name] for field in fields(Options) if field.name in given})
    return search(
        model,
        example,
        data,
        options,
        cost,
        objective=objective,
        samples=samples,
        checkpoint=checkpoint,
        progress=progress,
    )


def search(
    model: nn.Module,
    example: torch.Tensor,
    data: Data,
    options: Options,
    cost: BitsCost,
    *,
    objective: str = "luts",
    samples: int = 1000,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Precision:
    """Do what `search_bits` does; of ``options``, the widths of all layers and those of a training do not count."""
    options.check_search()
    if samples < 1:
        raise ConfigError(f"quantize: samples must be at least 1, not {samples}; 1000 is usual")
    training.seed_everything(options.seed)
    graph = traced(model, example)
    check_samples(graph, data, epochs=1)
    widest = max(options.candidate_bits)
    widths = replace(options, weight_bits=widest, activation_bits=widest).widths(graph)
    bench = _Bench(graph, data, widths, options.ranges, cost, samples, checkpoint, progress)
    return _Search(bench, options, objective).run()


class _Bench:
    """Measures networks at chosen widths, each once: loss and accuracy by calibration, figures by ``cost``."""

    def __init__(
        self,
        graph: fx.GraphModule,
        data: Data,
        widths: Widths,
        how: Calibration,
        cost: BitsCost,
        samples: int,
        checkpoint: Path | None,
        progress: Progress,
    ) -> None:
        import torch

        self.graph, self.widths, self.how, self.cost, self.progress = graph, widths, how, cost, progress
        self.split = data.validation[0][:samples], data.validation[1][:samples]
        self.samples = tuple(torch.from_numpy(a[:CALIBRATION_SAMPLES]) for a in arrays(data.train[0]))
        identity = {"search": repr([widths, how, samples]), "digest": training.digest(graph, data)}
        self.file = Checkpoint(checkpoint, identity)
        self.known: dict[str, list[float]] = dict((self.file.load() or {}).get("measured", {}))
        self.points: dict[str, BitsPoint] = {}
        self.priced: dict[tuple[int, ...], Mapping[str, float]] = {}
        self.stands: dict[str, int] = {}
        self.covers: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.float_accuracy = training.evaluate(without_softmax(graph), self.split)[1]

    def knobs(self) -> tuple[Knob, ...]:
        """Return what can be chosen: weights layer by layer; activations, those of one quantizer together."""
        settled, widest = self.widths.layers, self.widths.activation
        weighted = list(self.widths.bias)
        asked = {"activation_bits": max(1, widest - 1)}
        self.stands = self._stands({})
        low = self._stands({name: asked for name in weighted if name in self.stands})
        names = [n for n in low if n in weighted] + [n for n in low if n not in weighted and low[n] == widest]
        groups: dict[tuple[str, ...], None] = {}
        for name in names:
            found = self._stands({other: asked for other in names if other != name})
            groups[tuple(other for other in names if found[other] == widest) or (name,)] = None
        free = [group for group in groups if not any("activation_bits" in settled.get(n, {}) for n in group)]
        for group in free:
            found = self._stands(dict.fromkeys(group, asked))
            self.covers[group] = tuple(name for name, bits in found.items() if bits != self.stands[name])
        own = [name for name in weighted if "weight_bits" not in settled.get(name, {})]
        return (*(("weight_bits", (name,)) for name in own), *(("activation_bits", group) for group in free))

    def _stands(self, layers: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        return quantized_copy(self.graph, replace(self.widths, layers=self._merged(layers)))[1]

    def _merged(self, layers: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
        settled = self.widths.layers
        return {name: {**layers.get(name, {}), **settled.get(name, {})} for name in {**settled, **layers}}

    def figures(self, state: State) -> Mapping[str, float]:
        """Return what a choice costs."""
        key = tuple(state.values())
        if key not in self.priced:
            weights = {name: self.widths.weight_of(name) for name in self.widths.bias}
            stands = dict(self.stands)
            for (kind, names), bits in state.items():
                if kind == "weight_bits":
                    weights[names[0]] = bits
                else:
                    stands |= dict.fromkeys(self.covers[names], bits)
            widest = self.widths.weight, self.widths.activation
            pairs = {
                name: (weights.get(name, widest[0]), stands.get(name, widest[1]))
                for name in {**weights, **stands}
            }
            self.priced[key] = dict(self.cost(self.graph, Bits(*widest, self.widths.input, pairs)))
        return self.priced[key]

    def measure(self, state: State, name: str = "mixed") -> BitsPoint:
        """Return loss, accuracy and figures of a choice."""
        layers = self._merged(_by_layer(state))
        key = json.dumps(layers, sort_keys=True)
        if key not in self.points:
            if key not in self.known:
                widths = replace(self.widths, layers=layers)
                quant = calibrated(self.graph, widths, self.samples, self.how)[0]
                self.known[key] = list(training.evaluate(without_softmax(quant), self.split))
                self.file.save({"measured": self.known})
            loss, accuracy = self.known[key]
            self.points[key] = BitsPoint(name, layers, loss, accuracy, dict(self.figures(state)))
        return self.points[key]


class _Search:
    """Goes down from the widest choice; see `search_bits`."""

    def __init__(self, bench: _Bench, options: Options, objective: str) -> None:
        self.bench, self.objective = bench, objective
        self.candidates = sorted(set(options.candidate_bits))
        self.drop, self.budget = options.max_accuracy_drop, dict(options.bit_budget or {})
        self.knobs = bench.knobs()
        self.done = 0

    def run(self) -> Precision:
        start = self._uniform(self.candidates[-1])
        self._check_names(self.bench.figures(start))
        for bits in self.candidates:
            self._measure(self._uniform(bits), f"{bits} bits")
        if self.drop is None:
            self._within_budget(start)
        else:
            self._at_accuracy(start)
        point = self._best()
        return Precision(
            layers=point.layers,
            accuracy=point.accuracy,
            float_accuracy=self.bench.float_accuracy,
            cost=point.cost,
            objective=self.objective,
            points=tuple(self.bench.points.values()),
            samples=len(self.bench.split[1]),
        )

    def _best(self) -> BitsPoint:
        """Return the best of all that was measured and holds the constraint."""
        points = self.bench.points.values()
        if self.drop is not None:
            holding = [p for p in points if p.accuracy >= self.bench.float_accuracy - self.drop]
            return min(holding, key=lambda p: (p.cost[self.objective], -p.accuracy))
        fitting = [p for p in points if all(p.cost[name] <= limit for name, limit in self.budget.items())]
        return min(fitting, key=lambda p: (-p.accuracy, p.loss))

    def _at_accuracy(self, state: State) -> None:
        """Go down as long as the accuracy holds; a choice that breaks it is not tried again."""
        best, least = self._measure(state), self.bench.float_accuracy - (self.drop or 0.0)
        if best.accuracy < least:
            raise ConfigError(
                "quantize: max_accuracy_drop must be within reach of the widest candidates, but "
                f"{self.candidates[-1]} bits reach {best.accuracy:.2%} where {least:.2%} is asked for; "
                "raise it, or give wider candidate_bits"
            )
        sensitivity, blocked = self._sensitivities(state), set()
        while moves := [m for m in self._ranked(state, sensitivity) if m not in blocked]:
            tried = {**state, moves[0][0]: moves[0][1]}
            if self._measure(tried).accuracy >= least:
                state = tried
            else:
                blocked.add(moves[0])

    def _within_budget(self, state: State) -> None:
        """Go down until the budget is met, then up where there is room and the loss falls."""
        sensitivity = self._sensitivities(state)
        while self._excess(state):
            moves = self._ranked(state, sensitivity)
            if not moves:
                raise ConfigError(
                    f"quantize: bit_budget must be within reach, but at the least candidate widths the network takes "
                    f"{self._shortfall(state)}; raise it, give smaller candidate_bits, or prune"
                )
            state = {**state, moves[0][0]: moves[0][1]}
            self._measure(state)
        improved = True
        while improved:
            improved = False
            for knob in self.knobs:
                wider = [bits for bits in self.candidates if bits > state[knob]]
                tried = {**state, knob: wider[0]} if wider else state
                if (
                    wider
                    and not self._excess(tried)
                    and self._measure(tried).loss < self._measure(state).loss
                ):
                    state, improved = tried, True

    def _sensitivities(self, widest: State) -> dict[tuple[Knob, int], float]:
        """Return how much the loss rises with one width lowered by itself."""
        base = self._measure(widest).loss
        return {
            (knob, bits): max(0.0, self._measure({**widest, knob: bits}, "one width").loss - base)
            for knob in self.knobs
            for bits in self.candidates
        }

    def _ranked(self, state: State, sensitivity: Mapping[tuple[Knob, int], float]) -> list[tuple[Knob, int]]:
        """Return the steps down, the least loss for what is saved first; steps that save nothing last."""
        now = self._price(state)
        found = []
        for knob in self.knobs:
            narrower = [bits for bits in self.candidates if bits < state[knob]]
            if narrower:
                rise = sensitivity[knob, narrower[-1]] - sensitivity[knob, state[knob]]
                saved = now - self._price({**state, knob: narrower[-1]})
                rank = (max(rise, 0.0) + _EPSILON) / saved if saved > 0 else math.inf
                found.append((rank, max(rise, 0.0), knob, narrower[-1]))
        return [(knob, bits) for _, _, knob, bits in sorted(found)]

    def _price(self, state: State) -> float:
        """Return what must fall: the objective, or how far the budget is exceeded."""
        return self._excess(state) if self.budget else float(self.bench.figures(state)[self.objective])

    def _excess(self, state: State) -> float:
        found = self.bench.figures(state)
        return sum(max(0.0, found[name] / limit - 1) for name, limit in self.budget.items())

    def _shortfall(self, state: State) -> str:
        found = self.bench.figures(state)
        over = [(name, limit) for name, limit in self.budget.items() if found[name] > limit]
        return ", ".join(f"{name} {found[name]:g} of at most {limit:g}" for name, limit in over)

    def _check_names(self, figures: Mapping[str, float]) -> None:
        for what, names in (("objective", [self.objective]), ("bit_budget", list(self.budget))):
            for name in names:
                if name not in figures:
                    raise ConfigError(
                        f"quantize: {what} must be of {', '.join(figures)}, not of {name!r}; correct the name"
                    )

    def _uniform(self, bits: int) -> State:
        return dict.fromkeys(self.knobs, bits)

    def _measure(self, state: State, name: str = "mixed") -> BitsPoint:
        point = self.bench.measure(state, name)
        self.done = len(self.bench.points)
        most = len(self.knobs) * (2 * len(self.candidates) - 1)
        self.bench.progress(self.done, max(most, self.done), f"widths: accuracy {point.accuracy:.2%}")
        return point


def _by_layer(state: State) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (key, names), bits in state.items():
        for name in names:
            found.setdefault(name, {})[key] = bits
    return found
