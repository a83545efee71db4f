"""QONNX files: reading, cleaning, executing over many samples, and as plain Python."""

from flow.qonnx.cleaning import clean, clean_named
from flow.qonnx.execution import activations, apply, execute, without_softmax
from flow.qonnx.files import datatype, load
from flow.qonnx.graph import CHANNELS_LAST, FileGraph, FileNode, compute_nodes, plain
from flow.qonnx.weights import constant, weights

__all__ = [
    "CHANNELS_LAST",
    "FileGraph",
    "FileNode",
    "activations",
    "apply",
    "clean",
    "clean_named",
    "compute_nodes",
    "constant",
    "datatype",
    "execute",
    "load",
    "plain",
    "weights",
    "without_softmax",
]
