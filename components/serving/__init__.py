"""The model server: TensorFlow Serving's REST and gRPC faces over SavedModels."""
