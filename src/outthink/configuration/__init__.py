"""The user's configuration: one TOML file with models by name, and what `outthink serve` needs."""
