"""Native core, bound through Cython. Only curve_py.client, metaserver.adapters and
chunkserver.store look in here."""
