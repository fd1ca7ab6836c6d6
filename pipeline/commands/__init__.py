"""The commands of the command line, which `kerasline.pipeline.commands.app` puts together: they parse, ask other modules, and print."""
