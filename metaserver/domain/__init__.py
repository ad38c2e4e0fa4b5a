"""Pure: entities, commands, the state machine, placement. Imports no framework and does no I/O."""
