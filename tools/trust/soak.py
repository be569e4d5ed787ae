"""Hours of training from shards with damaged samples, whose loading processes are killed: does anything grow?

    python tools/trust/soak.py [--minutes 60] [--kill-every 20] [--out soak]

Trains a tiny model on a CPU from shards of which 1 % of the samples are damaged (dataset.max_bad=0.05), saves every 50
steps, and kills one of the two loading processes (SIGKILL) at random every --kill-every seconds. Every 5 s it looks at
the main process and all its children:

    main_mb, all_mb   resident memory of the main process; of all, shared pages counted once (Pss)
    files, threads    of the main process
    children          loading processes, and what else it started
    shared            segments of shared memory: mapped by the main process, or left in /dev/shm by any process of it
    step              of the newest line of metrics.jsonl

OUT/soak.csv has all that was seen. Printed: least, median and most of the first and of the last quarter, and the slope
per hour of a straight line through all but the first tenth. Exits with 1 if the run ended by itself, or something grew:
the median of memory by more than 3 %; of the others, which come and go with the batches under way, the least.
"""

import argparse
import contextlib
import csv
import io
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

LOOK = 5.0  # seconds between two looks
MAY_GROW = 1.03
COLUMNS = ("main_mb", "all_mb", "files", "threads", "children", "shared")
RUN = [
    *("recipe=my_images", "data=shards", "run_dir=run", "hardware=cpu", "hardware.num_workers=2"),
    *(
        "dataset.max_bad=0.05",
        "batch_size=16",
        "actions.affine_crop.size=16",
        "encoder.width=4",
        "evaluation.baselines=null",
    ),
    *("identity.simclr.hidden=16", "identity.simclr.out=8", "manipulation.binned.hidden=16"),
    *("training.epochs=1000000", "training.warmup_epochs=1", "training.log_every=50", "training.checkpoint_every=50"),
]


def stec(command: str, *words: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; from stec.cli.{command} import main; sys.exit(main())", *words]


def shards(out: Path, num: int = 1000) -> int:
    """out/shards/train of `num` small pictures; a byte of every hundredth is flipped. Gives the number of those."""
    numbers = np.random.default_rng(0)
    for i in range(num):
        path = out / "pictures" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    how = ("--packer", "image_folder", "--out", "shards", "--samples-per-shard", "200")
    pack = stec("shards", "pack", "pictures", *how)
    subprocess.run(pack, cwd=out, check=True, stdout=subprocess.DEVNULL)
    damaged = 0
    for tar in sorted((out / "shards" / "train").glob("*.tar")):
        data = bytearray(tar.read_bytes())
        places = [at for at in range(len(data)) if data.startswith(b"\x89PNG", at)][::100]
        for at in places:
            data[at + 1000] ^= 1
        tar.write_bytes(data)
        damaged += len(places)
    return damaged


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def loading(pid: int) -> list[int]:
    return [each for each in children(pid) if b"resource_tracker" not in Path(f"/proc/{each}/cmdline").read_bytes()]


def megabytes(pid: int, name: str, file: str) -> float:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def look(pid: int, known: set[int]) -> dict[str, float]:
    """One row; FileNotFoundError or ProcessLookupError if a child ended meanwhile. known: all processes seen so far."""
    all_of_them = [pid, *children(pid)]
    known.update(all_of_them)
    mapped = Path(f"/proc/{pid}/maps").read_text().count("/dev/shm/")
    left = [path for path in Path("/dev/shm").iterdir() if any(str(each) in path.name for each in known)]
    return {
        "main_mb": megabytes(pid, "VmRSS", "status"),
        "all_mb": sum(megabytes(each, "Pss", "smaps_rollup") for each in all_of_them),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "children": len(all_of_them) - 1,
        "shared": mapped + len(left),
    }


def step(out: Path) -> int:
    """The last step that was logged; the file is read from its end, for it grows long."""
    with (out / "run" / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - 4096))
        lines = file.read().decode().splitlines()
    whole = [line for line in lines if line.startswith('{"') and line.endswith("}") and '"step":' in line]
    return int(whole[-1].split('"step":')[1].split(",")[0].strip(" }"))


def watched(run: "subprocess.Popen[bytes]", out: Path, minutes: float, kill_every: float) -> Iterator[dict[str, float]]:
    """A row every LOOK seconds, while processes are killed; ends early if the run does."""
    chance, begun, known, killed = random.Random(0), time.monotonic(), set[int](), 0
    next_kill = begun + kill_every
    while run.poll() is None and (seconds := time.monotonic() - begun) < 60 * minutes:
        if time.monotonic() >= next_kill and (victims := loading(run.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
            killed, next_kill = killed + 1, next_kill + kill_every
        time.sleep(LOOK)
        try:
            yield {"seconds": round(seconds), **look(run.pid, known), "step": step(out), "killed": killed}
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue  # between two states; there is another look


def verdict(rows: list[dict[str, float]]) -> list[str]:
    """Prints the table; what grew."""
    rows = rows[len(rows) // 10 :]
    quarter = max(1, len(rows) // 4)
    hours = [row["seconds"] / 3600 for row in rows]
    grew = []
    print(f"{'':10}{'first quarter':>28}{'last quarter':>28}{'slope per hour':>18}")
    for name in COLUMNS:
        values = [row[name] for row in rows]
        parts = [values[:quarter], values[-quarter:]]
        told = [f"{min(part):.1f} / {statistics.median(part):.1f} / {max(part):.1f}" for part in parts]
        print(f"{name:10}{told[0]:>28}{told[1]:>28}{np.polyfit(hours, values, 1)[0]:>18.2f}")
        memory = name.endswith("_mb")
        first, last = (statistics.median(part) if memory else min(part) for part in parts)
        if last > first * (MAY_GROW if memory else 1):
            grew.append(name)
    return grew


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kill-every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=Path("soak"), help="a new folder")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True)
    damaged = shards(out)
    with (out / "said.txt").open("wb") as said:
        run = subprocess.Popen(stec("train", *RUN), cwd=out, stdout=said, stderr=said)
    while run.poll() is None and not ((out / "run" / "metrics.jsonl").exists() and loading(run.pid)):
        time.sleep(0.5)
    rows = []
    with (out / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["seconds", *COLUMNS, "step", "killed"])
        table.writeheader()
        for row in watched(run, out, arguments.minutes, arguments.kill_every):
            rows.append(row)
            table.writerow(row)
            file.flush()
    alive = run.poll() is None
    run.send_signal(signal.SIGTERM)
    code = run.wait(120)
    text = (out / "said.txt").read_text(errors="replace")
    print(f"{len(rows)} looks in {rows[-1]['seconds'] / 60:.0f} minutes, step {rows[-1]['step']:.0f};", end=" ")
    again, named = text.count("loading processes begun again"), text.count("damaged sample")
    print(f"processes killed: {rows[-1]['killed']:.0f}, begun again: {again};", end=" ")
    print(f"samples damaged: {damaged}, named in the log: {named}; exit code at the end: {code}")
    grew = verdict(rows)
    if not alive:
        print(f"it ended by itself: {text[-2000:]}")
    print(f"grew: {', '.join(grew)}" if grew else "flat: nothing grew")
    return int(bool(grew) or not alive or code != 143)


if __name__ == "__main__":
    sys.exit(main())
