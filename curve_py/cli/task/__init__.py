"""Verbs of `curve task`: one file each."""
