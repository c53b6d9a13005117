"""The operator's wishes: one TOML file, the environment and flags, read into one frozen value."""

from outthink.serving.config.config import Config, read_config, read_store
from outthink.serving.config.sections import (
    BackendConfig,
    Content,
    Listen,
    LogsConfig,
    PolicyFile,
    Store,
    TelemetryConfig,
)

__all__ = [
    "BackendConfig",
    "Config",
    "Content",
    "Listen",
    "LogsConfig",
    "PolicyFile",
    "Store",
    "TelemetryConfig",
    "read_config",
    "read_store",
]
