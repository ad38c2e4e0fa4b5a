"""Verbs of `curve volume`: one file each."""
