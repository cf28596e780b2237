"""Benchmarks: one question per file. See README.md."""
