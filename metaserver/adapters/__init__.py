"""Implementations of what the domain declares in ports.py: native raft node, gRPC to chunkservers."""
