"""Choice: which strategy a request gets."""

from outthink.controller.choose import choose

__all__ = ["choose"]
