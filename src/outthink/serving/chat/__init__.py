"""Strategies over chats: what a request asks for, how it is run through a session, and what the client gets."""
