"""Hidden verbs, for programs of this project."""
