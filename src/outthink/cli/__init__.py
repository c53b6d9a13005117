"""The faces people touch first: commands in a terminal."""
