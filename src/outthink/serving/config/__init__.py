"""The operator's wishes: one TOML file, the environment and flags, read into one frozen value."""

from outthink.serving.config.config import Config, read_config, read_store
from outthink.serving.config.sections import Backend, Content, Listen, Logs, PolicyFile, Store, Telemetry

__all__ = [
    "Backend",
    "Config",
    "Content",
    "Listen",
    "Logs",
    "PolicyFile",
    "Store",
    "Telemetry",
    "read_config",
    "read_store",
]
