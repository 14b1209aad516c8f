"""One module per read model: layout, write commands, read commands and SQL oracle."""
