"""`stec-eval action A B --model SOURCE`: what was done? q(action | x, x') in words and a picture."""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from stec import build
from stec.build import Model
from stec.decoder import begin
from stec.errors import DataError, UsageError
from stec.evaluation.features import frozen
from stec.manipulation.binned import Binned, Posterior


def run(words: list[str]) -> int:
    """Print the likeliest action from A to B and how sure the model is; write the picture."""
    parser = argparse.ArgumentParser(prog="stec-eval action", description=__doc__)
    parser.add_argument("a", type=Path, metavar="A", help="the file of the first view, as the evaluation sees it")
    parser.add_argument("b", type=Path, metavar="B", help="the file of the second view")
    parser.add_argument("--model", required=True, metavar="SOURCE", help="run directory, checkpoint or exported folder")
    parser.add_argument("--out", type=Path, default=Path("action.png"), help="the picture; default: %(default)s")
    arguments = parser.parse_args(words)
    files = [_bytes(path) for path in (arguments.a, arguments.b)]
    model = build.load(arguments.model)
    a, b = (_look(model, raw, path) for raw, path in zip(files, (arguments.a, arguments.b), strict=True))
    answer = ask(model, a, b, arguments.model)
    values = likeliest(answer)
    print(f"{arguments.a} -> {arguments.b}: {model.picture.words(values)}")
    _show(answer)
    shown = (model.picture.source(raw, model.decoder) for raw in files)
    _write(arguments.out, model.picture.answer(*shown, values))
    print(f"picture: {arguments.out}")
    return 0


def ask(model: Model, a: Tensor, b: Tensor, source: str) -> Posterior:
    """q(action | a, b) of views a, b [B, ...]; UsageError if the model was not taught to say what was done."""
    terms = [] if model.stec is None else list(model.stec.manipulation.values())
    reader = next((term for term in terms if isinstance(term, Binned)), None)
    if reader is None:
        raise UsageError(f"{source} has no manipulation model between two samples: it cannot say what was done.")
    with frozen(model.encoder, reader):
        return reader.posterior(model.encoder(a), model.encoder(b))


def likeliest(answer: Posterior) -> dict[str, float]:
    """{component: a typical value of its likeliest bin} of the first pair."""
    best = answer.log_probs[0].argmax(dim=1)
    return {c.name: float(answer.centres[i, best[i]]) for i, c in enumerate(answer.components)}


def _show(answer: Posterior) -> None:
    table = Table()
    for title in ("component", "unit", "value", "likeliest bin", "how sure", "a guess"):
        table.add_column(title, justify="left" if title in ("component", "unit") else "right", no_wrap=True)
    probabilities = answer.log_probs[0].exp()
    for i, component in enumerate(answer.components):
        num = int(answer.num_bins[i])
        best = int(probabilities[i].argmax())
        table.add_row(
            component.name,
            component.unit,
            f"{float(answer.centres[i, best]):.2f}",
            _between(answer.edges[i, : num - 1].tolist(), best),
            f"{float(probabilities[i, best]):.0%}",
            f"{1 / num:.0%}",
        )
    Console().print(table)


def _between(edges: list[float], place: int) -> str:
    """The bin number `place` of those that the edges separate."""
    if place == 0:
        return f"below {edges[0]:.2f}"
    return f"above {edges[-1]:.2f}" if place == len(edges) else f"{edges[place - 1]:.2f} to {edges[place]:.2f}"


def _look(model: Model, raw: bytes, path: Path) -> Tensor:
    """The sample as the evaluation sees it, float [1, ...]: a view by the action that leaves it as it is (`still`)."""
    decoder, space = model.decoder, model.space
    try:
        opened = decoder.open(raw)
        extent = torch.tensor([opened.extent])
        action = torch.zeros(1, space.num_params)
        moving = {name: part for name, part in space.parts.items() if part.components or hasattr(part, "still")}
        for name, part in moving.items():
            if not hasattr(part, "still"):
                raise UsageError(f"actions.{name} does not say what leaving a sample as it is would be (still).")
            action[:, space.slices[name]] = part.still(extent)
        x: Tensor = decoder.finish(begin(decoder, opened, action)[0][None])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    for name in list(space.parts)[decoder.performs :]:
        if name in moving:
            x = moving[name].act(x, action[:, space.slices[name]], 0)
    return x


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--out {path} cannot be written: {error.strerror}.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
