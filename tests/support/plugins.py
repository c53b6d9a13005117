"""Distributions with plugins, as an installer leaves them: modules and a folder of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    folder: Path,
    name: str,
    entries: Mapping[str, Mapping[str, str]],
    *,
    version: str = "1.0",
    modules: Mapping[str, str] | None = None,
) -> None:
    """Put a distribution into a folder of the path.

    Args:
        entries: targets by name by group, the group without `outthink.`.
        modules: source by module's name.
    """
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, targets in entries.items():
        lines.append(f"[outthink.{group}]")
        lines += [f"{key} = {target}" for key, target in targets.items()]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(source)
    (about / "RECORD").write_text("".join(f"{module}.py,,\n" for module in modules or {}))
