"""A strategy of its own distribution: stop at the first answer that has been given twice."""

import outthink as ot


@ot.strategy("first-pair", source="examples/plugin", votes="answers", stops_early=True)
async def first_pair(session: ot.Session, request: ot.Request, *, n: int = 16) -> ot.Verdict:
    """Majority vote that stops as soon as two samples agree."""
    votes = ot.Votes()
    async for sample in session.sample(request, n=n):
        votes.add(sample)
        if max(votes.weights.values(), default=0) >= 2:
            return votes.winner("consensus")
    return votes.winner()
