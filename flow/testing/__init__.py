"""Holding a config to its best results, in pytest."""
