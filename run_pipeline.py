"""The command line from a checkout: `python run_pipeline.py` is `kerasline`."""

import sys
from pathlib import Path

from kerasline.pipeline.commands.app import main

# Python put this folder first on the path. Its components/, pipeline/ and tests/ would hide those of a user's project;
# kerasline, once imported, finds its own modules without it.
HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [entry for entry in sys.path if entry != HERE]

if __name__ == "__main__":
    main()
