"""Child processes: start one, exchange messages with it, watch it, end it with its parent, report how it ended."""
