"""InfraValidator: serve a candidate model and compare its answers with those of the model itself."""
