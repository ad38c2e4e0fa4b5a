"""The `curve` command: one file per verb, one object that prints."""
