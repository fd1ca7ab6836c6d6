"""The gRPC interface: services, messages, tensors."""
