"""curve node ..."""
