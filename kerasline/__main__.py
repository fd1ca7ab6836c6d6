"""`python -m kerasline`: the same as the console script `kerasline`."""

from kerasline.pipeline.commands.app import main

if __name__ == "__main__":
    main()
