"""The operator's configuration: one TOML file, the environment and flags, read into one frozen value."""

from outthink.serving.config.config import Config, config_file, read_config, read_store

__all__ = ["Config", "config_file", "read_config", "read_store"]
