"""The metaserver: a replicated state machine on the project's consensus core."""
