"""Figures by the kind of data that they show; no figure knows an experiment."""
