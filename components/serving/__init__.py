"""The model server: TensorFlow Serving's REST and gRPC interfaces for SavedModels."""
