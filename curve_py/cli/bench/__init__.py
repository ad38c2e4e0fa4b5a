"""Verbs that measure: how the system behaves under faults."""
