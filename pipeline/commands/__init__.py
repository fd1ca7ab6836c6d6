"""The command line. Each command parses its options, calls other modules and prints; `app` lists all commands."""
