"""Verbs of `curve chunkserver`: one file each."""
