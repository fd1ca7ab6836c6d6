"""ModelBuilder: models from functions, descriptions and earlier models."""
