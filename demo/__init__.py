"""Load from outside: graphs of people, their bulk copy into the database, posting over REST, and the demo."""
