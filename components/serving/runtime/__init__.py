"""What REST and gRPC share: the server process, models and versions, batching, admission."""
