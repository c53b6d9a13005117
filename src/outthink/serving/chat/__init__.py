"""Strategies over chats: what a request wishes, how it is run through a session, and what the client gets."""
