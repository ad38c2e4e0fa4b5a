"""Verbs of the cluster on this machine: up, down, status."""
