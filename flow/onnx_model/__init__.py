"""Float networks as ONNX files: read into standard torch modules, and written back (see README.md)."""

from flow.onnx_model.files import digest, is_quantized, load
from flow.onnx_model.reader import read
from flow.onnx_model.writer import check_opset, write

__all__ = ["check_opset", "digest", "is_quantized", "load", "read", "write"]
