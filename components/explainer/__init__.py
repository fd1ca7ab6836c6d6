"""Why a model answers as it does: importances, attributions, dependences, and its worst rows."""
