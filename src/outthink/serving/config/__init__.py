"""The operator's configuration: one TOML file, the environment and flags, read into one frozen value."""

from outthink.serving.config.config import Config, read_capacity, read_config, read_store

__all__ = ["Config", "read_capacity", "read_config", "read_store"]
