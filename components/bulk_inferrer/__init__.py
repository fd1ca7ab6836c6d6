"""Answers of a model for many rows: shard by shard, through Beam."""
