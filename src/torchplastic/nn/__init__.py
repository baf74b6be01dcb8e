"""Layers: parameters and one call to ops."""
