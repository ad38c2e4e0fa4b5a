"""Verbs of `curve copyset`: one file each."""
