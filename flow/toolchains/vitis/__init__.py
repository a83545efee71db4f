"""Vitis HLS and Vivado: the build plan, and every file that they write, read without trust."""
