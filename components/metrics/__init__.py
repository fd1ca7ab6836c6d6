"""The metrics, a family a file: those that are computed of the same sums, counts or states."""
