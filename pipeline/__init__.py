"""How stages are chained, run and recorded. This package imports `kerasline.components`, never the reverse."""
