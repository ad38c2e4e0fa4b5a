"""Mounts and file systems, done by a helper process: nothing forks in the gRPC server."""
