"""A model in a child process of this one: its file, its server and the engine over both."""

from outthink.engines.embedded.engine import EmbeddedEngine
from outthink.engines.embedded.fetch import find_model, models_dir, pull
from outthink.engines.embedded.gguf import GGUFInfo, read_gguf

__all__ = ["EmbeddedEngine", "GGUFInfo", "find_model", "models_dir", "pull", "read_gguf"]
