"""`stec-export SOURCE [--out FOLDER]`: the trained encoder as safetensors under the names that other libraries know,
with the manipulation model, a description and a model card. SOURCE: a run directory or a checkpoint."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stec import __version__, build
from stec.cli.door import guarded
from stec.errors import UsageError
from stec.export import export
from stec.stored import configuration, from_json
from stec.training import checkpoint


@guarded
def main(argv: list[str] | None = None) -> int:
    """0; 2 for a slip of the user."""
    parser = argparse.ArgumentParser(prog="stec-export", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: exported, in the run directory")
    parser.add_argument("--ema", action="store_true", help="the averaged encoder (of a run with training.ema)")
    arguments = parser.parse_args(argv)
    file, run = _found(arguments.source)
    out = arguments.out if arguments.out is not None else run / "exported"
    model = build.load(str(file))
    assert model.stec is not None
    state = checkpoint.load(file)
    metrics, protocol = _measured(run, file)
    if arguments.ema:
        if state.get("ema") is None:
            raise UsageError(f"{file}: there is no averaged encoder in it, for the run had no training.ema.")
        checkpoint.fill(model.encoder, state["ema"], str(file))
        metrics = {}  # they were measured on the other one
    lines = export(
        out,
        model.spec,
        model.encoder,
        model.stec.manipulation if len(model.stec.manipulation) else None,
        metrics=metrics,
        protocol=protocol,
        facts=_facts(run, state),
    )
    print(f"exported to {out}; load it with\n\n    " + "\n    ".join(lines))
    return 0


def _found(source: Path) -> tuple[Path, Path]:
    """The checkpoint that is meant, and the directory of its run."""
    if source.is_dir():
        newest = checkpoint.latest(source / "checkpoints")
        if newest is None:
            raise UsageError(f"{source}: there is no checkpoint in it; name a run directory or a checkpoint.")
        return newest, source
    file = Path(os.path.realpath(source))  # checkpoints/last is a link
    if file.suffix != ".ckpt" or not file.is_file():
        raise UsageError(f"{source} is neither a run directory nor a checkpoint (.ckpt).")
    return file, file.parent.parent


def _measured(run: Path, file: Path) -> tuple[dict[str, float], dict[str, str]]:
    """The trained row of the run's table with its protocols, if it is the last checkpoint that is exported."""
    table = run / "table.json"
    newest = checkpoint.stored(run / "checkpoints")[-1:]
    if not table.is_file() or [path.resolve() for path in newest] != [file.resolve()]:
        return {}, {}
    try:
        told = from_json(table.read_text(encoding="utf-8"))
        metrics = {str(name): float(value) for name, value in told["rows"].get("trained", {}).items()}
        return metrics, {str(start): str(words) for start, words in told["protocol"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(f"{table} is damaged: {type(error).__name__}: {error}.") from error


def _facts(run: Path, state: Mapping[str, Any]) -> dict[str, str]:
    config = run / "config.yaml"
    known = configuration(config) if config.is_file() else {}
    data, dataset = (node if isinstance(node, dict) else {} for node in (state.get("data"), known.get("dataset")))
    facts = {
        "recipe": known.get("name"),
        "data": dataset.get("name"),
        "data fingerprint": data.get("fingerprint"),
        "batch size": data.get("batch_size"),
        "seed": data.get("seed"),
        "steps": state["step"],
        "started from": known.get("weights"),
        "made by": f"stec {__version__}",
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
