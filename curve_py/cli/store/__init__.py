"""Verbs of `curve store`: one file each, for a store whose chunkserver is stopped."""
