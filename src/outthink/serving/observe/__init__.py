"""What the proxy lets others see of its work: events, logs, metrics and traces."""
