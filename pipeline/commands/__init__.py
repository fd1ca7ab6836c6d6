"""The commands of the command line, which `pipeline.cli` puts together: they parse, ask other modules, and print."""
