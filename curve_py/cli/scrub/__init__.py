"""Verbs of `curve scrub`: one file each."""
