"""What comes from clients: connections, and the bodies of requests."""
