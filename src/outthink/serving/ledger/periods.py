"""Days and months of budgets, in UTC. Knows the calendar; does not know what is limited."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_DAY = 86_400


def day_of(moment: float) -> str:
    """The day of a moment (seconds since the epoch), as 2026-11-24."""
    return _named(int(moment // _DAY))


def month_of(day: str) -> str:
    """The month of a day, as 2026-11."""
    return day[:7]


def ends_in(period: str, moment: float) -> float:
    """Seconds from a moment until a day or month is over; not below 0."""
    if len(period) == 10:
        end = datetime.fromisoformat(period) + timedelta(days=1)
    else:
        year, month = int(period[:4]), int(period[5:])
        end = datetime(year + month // 12, month % 12 + 1, 1)
    return max(0.0, end.replace(tzinfo=UTC).timestamp() - moment)


@lru_cache(maxsize=1024)
def _named(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY, UTC).strftime("%Y-%m-%d")
