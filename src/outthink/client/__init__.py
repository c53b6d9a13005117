"""The main path: from a question to an answer and its receipt. Knows how the rooms below are put together."""

from outthink.client.batch import BatchResult
from outthink.client.client import Client, ask, ask_batch
from outthink.client.options import BatchOptions, Options
from outthink.client.progress import AskEvent
from outthink.client.sync import SyncClient, ask_sync

__all__ = ["AskEvent", "BatchOptions", "BatchResult", "Client", "Options", "SyncClient", "ask", "ask_batch", "ask_sync"]
