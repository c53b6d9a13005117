"""Fetches a GGUF file from a model hub. Knows the form of references and the `hub` extra; checks no content."""

from __future__ import annotations

from pathlib import Path

from outthink.core.errors import BadInput, EngineError

PREFIX = "hf:"


def fetch_from_hub(reference: str, folder: Path) -> Path:
    """Download `hf:owner/repo/file.gguf` (or `hf:owner/repo@revision/file.gguf`) below `folder`.

    Raises BadInput for a malformed reference, EngineError if the extra is missing or the hub refuses.
    """
    parts = reference.removeprefix(PREFIX).split("/", 2)
    if len(parts) < 3 or not all(parts) or not parts[2].endswith(".gguf") or ".." in parts[2].split("/"):
        raise BadInput("model", reference, "is no hub reference", f"write {PREFIX}owner/repo/file.gguf")
    owner, (repo, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise EngineError("models from a hub need the extra: pip install 'outthink[hub]'", fatal=True) from None
    try:
        return Path(
            hf_hub_download(f"{owner}/{repo}", file, revision=revision or None, local_dir=folder / owner / repo)
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EngineError(f"the hub did not give {reference}: {type(error).__name__} ({reason})", fatal=True) from error
