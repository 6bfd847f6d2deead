"""Experiments on disk: data, phases, checkpoints, measurements, summaries."""
