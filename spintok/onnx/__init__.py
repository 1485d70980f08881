"""Tokenizers as ONNX graphs, for C++, JavaScript and whatever else has ONNX Runtime: audio in, codes out."""

from spintok.onnx.export import OnnxExport, export_onnx

__all__ = ["OnnxExport", "export_onnx"]
