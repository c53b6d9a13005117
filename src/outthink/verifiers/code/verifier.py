"""Code against its tests as a verifier.

Knows: which problem a request is about, which part of a text is meant as the answer, and how many sandboxes run at
once. Does not know how a sandbox works.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.core.text import visible
from outthink.verifiers.checks import WithoutTokens
from outthink.verifiers.code.blocks import find_code
from outthink.verifiers.code.sandbox import CodeLimits, CodeProblem, CodeSandbox, CodeVerdict
from outthink.verifiers.protocol import Kind, Score, has_event_loop

Problems = Mapping[str, CodeProblem] | Callable[[Request], CodeProblem]


class CodeVerifier(WithoutTokens):
    """Scores 1 where the code in a completion passes its problem's test, else 0 with the reason; thinking is no code.

    Args:
        problems: by `request.problem`, or a function of the request.
        workers: checks at once, each of two processes; the number of cores if not given.
        sandbox: where code runs.
    """

    kind: Kind = "exact"
    model = "code"
    id: str

    def __init__(
        self,
        problems: Problems,
        *,
        limits: CodeLimits | None = None,
        workers: int | None = None,
        sandbox: CodeSandbox | None = None,
        id: str = "code",
    ) -> None:
        self.workers = (os.cpu_count() or 1) if workers is None else workers
        if self.workers < 1:
            raise BadInput("workers", workers, "is below 1", "give at least 1")
        self.problems, self.id = problems, id
        self.sandbox = sandbox or CodeSandbox(limits or CodeLimits())

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a completion, up to `workers` at once.

        Raises Unsupported where no sandbox can run, EngineError where one did not start, BadInput for
        a request without a problem or a test that is itself broken.
        """
        problem = self.problem(request)
        tasks = [(problem, candidate.text) for candidate in candidates]
        checks = check_all(tasks, self.sandbox, workers=self.workers)
        # A replayed session is driven by hand, without an event loop: then this call waits for all.
        verdicts = await checks if has_event_loop() else asyncio.run(checks)
        return [Score((1.0 if verdict.passed else 0.0,), message=verdict.message) for verdict in verdicts]

    def problem(self, request: Request) -> CodeProblem:
        """The problem a request is about. Raises BadInput where there is none."""
        if callable(self.problems):
            return self.problems(request)
        problem = self.problems.get(request.problem) if request.problem is not None else None
        if problem is None:
            raise BadInput("problem", request.problem, "has no code problem", "give its prompt, entry point and test")
        return problem


async def check_all(
    tasks: Iterable[tuple[CodeProblem, str]], sandbox: CodeSandbox, *, workers: int
) -> list[CodeVerdict]:
    """Verdicts of (problem, completion) pairs, in order; the first error ends what still runs and is raised."""
    gate = asyncio.Semaphore(workers)

    async def check(problem: CodeProblem, text: str) -> CodeVerdict:
        answer = visible(text)
        if answer is None:
            return CodeVerdict(False, "no code: the text ends in thinking")
        found = find_code(answer, problem.entry_point)
        async with gate:
            return await sandbox.check(problem, found.code, found.others, found.rest)

    running = [asyncio.ensure_future(check(problem, text)) for problem, text in tasks]
    try:
        return list(await asyncio.gather(*running))
    finally:
        for task in running:
            if not task.cancelling():  # a second time would disturb it while it ends its processes
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
