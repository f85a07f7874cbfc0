"""Models that turn texts into vectors, one kind per file, and vectors kept on disk."""
