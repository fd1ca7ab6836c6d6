"""Curated data schemas, one a recipe, in protobuf's text format."""
