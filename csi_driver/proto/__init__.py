"""The generated messages of the Container Storage Interface; made by tools/gen-proto."""
