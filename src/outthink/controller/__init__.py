"""Choice: which model, strategy and size a request gets, and with what stated risk."""

from outthink.controller.decide import decide

__all__ = ["decide"]
