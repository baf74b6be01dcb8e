"""Figures by the kind of data they show; none of them knows what the data came from."""
