"""Sources of rows, one module for each kind of data. `source` defines what they have in common."""
