"""The REST interface: endpoints, JSON, connections."""
