"""Command lines: thin doors around the library."""
