"""What every room shares: settings, identifiers, clock, errors, codecs, logging and the command line."""
