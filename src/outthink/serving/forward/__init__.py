"""Pass-through: what a client may have forwarded, and how the reply of a backend reaches it."""
