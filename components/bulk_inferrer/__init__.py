"""BulkInferrer: predictions of an exported model for whole data sets."""
