"""Metrics, one family per file: those computed from the same sums, counts or states."""
