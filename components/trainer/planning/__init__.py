"""Estimates of what a training needs, before it starts: memory, floating-point operations and time."""
