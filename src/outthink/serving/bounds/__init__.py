"""What a request may ask for, read before it is sent: its fields, and what it does not show."""
