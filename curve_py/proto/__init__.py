"""The control plane's published messages.

Generated from the .proto files here by tools/gen-proto.
"""
