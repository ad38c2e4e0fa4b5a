"""Implementations of what domain/ports.py declares: native raft node, gRPC to chunkservers."""
