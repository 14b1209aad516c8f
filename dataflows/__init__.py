"""One Bytewax flow per read model: wiring only."""
