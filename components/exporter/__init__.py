"""What the Exporter writes: signatures, their warm-up, a description, and further forms of the model."""
