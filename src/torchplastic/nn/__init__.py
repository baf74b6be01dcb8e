"""Layers: each holds parameters and calls one operation of `ops`."""
