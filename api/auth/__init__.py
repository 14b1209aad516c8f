"""Who calls: applications, passwords, signed tokens, sessions and scopes."""
