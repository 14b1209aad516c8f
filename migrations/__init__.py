"""One migration history, two dialects."""
