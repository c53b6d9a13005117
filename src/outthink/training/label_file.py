"""Process labels on disk. Knows the data card's columns and our further ones; writes the file whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput


def write_labels(out: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write a Parquet file at once. BadInput where it cannot be written.

    Beyond the data card's columns: `n_unparsed` (completions without a readable answer, counted wrong),
    `n_completions`, and `prefix_hash`, the same for equal prefixes of a problem. Completer, temperature
    and seed are in the file's metadata under `outthink`.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = pa.schema(
        [
            ("problem_id", pa.string()),
            ("sample_idx", pa.uint16()),
            ("step_idx", pa.uint16()),
            ("prefix_end", pa.uint32()),
            ("prefix_tokens", pa.uint32()),
            ("is_final", pa.bool_()),
            ("n_correct", pa.uint16()),
            ("n_correct_boxed", pa.uint16()),
            ("n_stop", pa.uint16()),
            ("mean_tokens", pa.float32()),
            ("n_unparsed", pa.uint16()),
            ("n_completions", pa.uint16()),
            ("prefix_hash", pa.string()),
        ],
        metadata={"outthink": json.dumps({**about, "version": version("outthink")})},
    )
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), draft, compression="zstd")
        os.replace(draft, out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadInput("--out", str(out), f"cannot be written ({error.strerror})", "check the folder") from None
