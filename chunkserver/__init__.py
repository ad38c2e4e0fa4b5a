"""The chunkserver's Python shell: starts the native store, configures it, reports.

No byte of data passes here.
"""
