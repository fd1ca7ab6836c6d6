"""The stages, a folder each, and what several of them share. `kerasline` itself lists the public names."""
