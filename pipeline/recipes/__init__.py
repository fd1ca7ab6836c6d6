"""Ready pipelines, one file each, short enough to read in a minute.

A recipe imports Keras inside its functions: a cached run, a listing and a look-up never need it.
"""

# Modules here that are not recipes themselves.
HELPERS = frozenset({"palmer_penguins", "sample_trips", "spoken_digits"})
