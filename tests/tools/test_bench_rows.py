"""The rows of tools/bench on sound, steps, losses, start and GPU, and growth: every one works, on little data; what is
compared does the same work. How fast anything is, is not tested."""

import io
import socket
import statistics
import sys
from collections import deque
from functools import partial
from itertools import count, repeat
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_dir

BENCH = Path(__file__).parents[2] / "tools/bench"
sys.path.insert(0, str(BENCH))

import growth  # noqa: E402
import process  # noqa: E402
import rows_gpu  # noqa: E402
import rows_loss  # noqa: E402
import rows_sound  # noqa: E402
import rows_start  # noqa: E402
import rows_step  # noqa: E402
import splits  # noqa: E402
import watched  # noqa: E402
from row import Options  # noqa: E402

from stec.cli import composing, recipes  # noqa: E402
from stec.experiment import Experiment  # noqa: E402
from stec.shards.reader import open_shards  # noqa: E402
from stec.training.options import Hardware  # noqa: E402
from stec_audio.encoders import Cpc  # noqa: E402
from stec_vision.encoders import ResNet  # noqa: E402

SMALL = Options(rounds=1, small=True)
CPU = Hardware(device="cpu", precision="fp32", num_workers=0)


@pytest.fixture(autouse=True)
def _single_thread():
    with process.one_thread():
        yield


def row(module, name):
    return next(row for row in module.ROWS if row.name == name)


def plausible(outcome):
    """Something was measured, and every way has numbers or says why not."""
    assert outcome.values
    assert all(value > 0 for value in outcome.values)
    assert all(way.missing or min(way.values) > 0 for way in outcome.ways)


def tiny(size):
    return rows_step.Tiny(3 * size * size)


def test_losses_agree_and_the_plain_one_holds_a_matrix(monkeypatch):
    monkeypatch.setattr(rows_loss, "find_spec", lambda name: None)
    assert set(rows_loss.losses()) == {"plain", "stec"}
    outcome = row(rows_loss, "R6c").measure(SMALL)
    assert statistics.median(outcome.values) < 1e-5
    outcome = row(rows_loss, "R6b").measure(SMALL)
    plausible(outcome)
    assert outcome.values == [outcome.ways[1].values[0] / outcome.ways[0].values[0]]
    pair = rows_loss.embeddings(2048)  # a matrix of 64 MiB: so large that the system gives it, and takes it back
    assert process.extra_mib(partial(rows_loss.forth_and_back, rows_loss.naive, *pair)) > 2 * 64


def test_the_memory_of_a_loss_is_measured_in_a_process_of_its_own(monkeypatch):
    told = {"stec": 1.0, "plain": 3.0, "lightly": 4.0}
    asked = []
    monkeypatch.setattr(rows_loss, "child", lambda script, name, num: asked.append((name, num)) or told[name])
    outcome = row(rows_loss, "R6").measure(Options(rounds=5, small=True))
    assert outcome.values == [1.0] * 3  # of a matrix of 512 x 512 numbers: 1 MiB
    assert asked.count(("stec", 256)) == 3
    assert asked.count(("plain", 256)) == 1


@pytest.mark.parametrize("made", [lambda r: r, rows_sound.pcm])
def test_windows_are_slices_of_the_whole(made):
    recordings = made(rows_sound.flacs(SMALL))
    seen = set()
    for epoch in (0, 1):
        windows, actions = recordings.batch(epoch)
        for raw, window, start in zip(recordings.raws, windows, actions[:, 0].int().tolist(), strict=True):
            whole = soundfile.read(io.BytesIO(raw), dtype="int16")[0]
            assert np.array_equal(window[0], whole[start : start + recordings.size])
            seen.add(start)
    assert len(seen) == 2 * len(recordings.raws)


def test_sound_is_compared_with_a_full_decode():
    for each in rows_sound.ROWS:
        outcome = each.measure(SMALL)
        plausible(outcome)
        assert (outcome.ways[0].name, outcome.ways[0].unit) == ("soundfile, all of the flac", "windows/s (CPU)")
        ours = next(way for way in outcome.ways if way.name == "stec, as a batch pays")
        assert outcome.values == [ours.values[0] / outcome.ways[0].values[0]]


def test_recordings_of_a_folder_are_those_of_about_14_seconds(tmp_path):
    x = np.random.default_rng(0).integers(-3000, 3000, 12 * 16_000).astype(np.int16)
    (tmp_path / "short.flac").write_bytes(rows_sound.flac(x[:100]))
    with pytest.raises(ValueError, match="no FLAC of 12 to 17 seconds"):
        rows_sound.found(tmp_path)
    (tmp_path / "a.flac").write_bytes(rows_sound.flac(x))
    recordings = rows_sound.flacs(Options(recordings=tmp_path))
    assert {*recordings.raws} == {rows_sound.flac(x)}
    assert len(recordings.raws) == 32


def test_the_plain_step_of_images_has_the_loss_of_the_loop():
    task = rows_step.images(ResNet(depth=18, stem="cifar", width=1), 4, 8, hidden=8, out=4)
    bare = task.bare(CPU)
    first = bare()
    torch.testing.assert_close(first, task.stec(task.complete(task.batch)).loss.detach())
    assert bare() != first  # it steps, and not the loop's own model:
    torch.testing.assert_close(first, task.stec(task.complete(task.batch)).loss.detach())


def test_the_plain_step_of_recordings_has_the_loss_of_the_loop():
    torch.manual_seed(0)
    task = rows_step.recordings(Cpc(channels=8, width=8), 4, 4800)
    torch.testing.assert_close(task.bare(CPU)(), task.stec(task.complete(task.batch)).loss.detach())


def test_the_loop_and_the_other_step_take_turns():
    done = []
    task = rows_step.images(tiny(8), 4, 8, hidden=8, out=4)
    complete = task.complete
    task = task._replace(complete=lambda batch: done.append("loop") or complete(batch))
    ways = {"loop": repeat(task.batch)}, {"other": lambda: done.append("other")}
    seconds = watched.watched(task, CPU, 2, 2, *ways, clock=lambda: float(len(done)))
    loop, other = ["loop"] * 2, ["other"] * 2
    assert done == [*other, *loop, *loop, *other, *other, *loop, "loop"]
    assert seconds == {"loop": [1, 1], "other": [1, 1]}


class Loader:
    """Time that is counted, not waited for. Processes that take `pace` seconds for a batch between them, and make it
    as soon as it may be asked for: two for each process, as torch's DataLoader does."""

    def __init__(self, batch, processes, pace):
        self.now, self._batch, self._takes = 0.0, batch, processes * pace
        self._free = [0.0] * processes
        self._made = deque(self._make(number) for number in range(2 * processes))

    def _make(self, number):
        process = number % len(self._free)
        self._free[process] = max(self._free[process], self.now) + self._takes
        return self._free[process]

    def batches(self):
        for number in count(len(self._made)):
            self.now = max(self.now, self._made.popleft())
            self._made.append(self._make(number))
            yield self._batch

    def step(self, views):
        self.now += 1
        return views


@pytest.mark.parametrize(("speed", "told"), [(0.9, 0.9), (1.1, 1.0)])
def test_a_loader_that_is_too_slow_is_not_hidden_by_what_it_made_before(speed, told):
    task = rows_step.images(tiny(8), 4, 8, hidden=16, out=8)
    loader = Loader(task.batch, 8, 1 / speed)
    complete = task.complete
    task = task._replace(complete=lambda batch: loader.step(complete(batch)))
    outcome = rows_gpu.fed(task, CPU, loader.batches(), rounds=2, block=30, ahead=16, clock=lambda: loader.now)
    assert statistics.median(outcome.values) == pytest.approx(told, abs=0.05)
    assert outcome.values == [loaded / one for one, loaded in zip(*(way.values for way in outcome.ways), strict=True)]


@pytest.mark.parametrize("name", ["R5", "R5s", "R5b", "R5bs"])
def test_steps(name):
    outcome = row(rows_step, name).measure(SMALL)
    plausible(outcome)
    base, own = outcome.ways[:2]
    assert "plain" in base.name or "without" in base.name
    assert outcome.values == pytest.approx([a / b for a, b in zip(own.values, base.values, strict=True)])


def test_one_tar_stands_for_many(tmp_path):
    samples = splits.photographs(4)
    splits.shards(tmp_path, 3, samples)
    source = open_shards(tmp_path / "train")
    assert source.shard_sizes == (4, 4, 4)
    assert [source.read(number)["jpg"] for number in range(12)] == [s["jpg"] for s in samples] * 3
    assert len({path.stat().st_ino for path in (tmp_path / "train").glob("*.tar")}) == 1


@pytest.mark.parametrize("small", [True, False])
def test_the_command_that_is_timed_is_one(tmp_path, small):
    recipes.register()
    with initialize_config_dir(str(recipes.own()), version_base="1.3"):
        config = compose("train", overrides=composing.expanded(rows_start.Job(tmp_path, small).words))
    settings = Experiment(composing.plain(config)).settings
    assert (settings.data, settings.run_dir) == (str(tmp_path / "shards"), str(tmp_path / "run"))


def test_starts_are_timed_on_data_that_is_made_for_it(monkeypatch):
    started = []

    def child(script, *words):
        started.append(words)
        assert open_shards(Path(words[1].removeprefix("data=")) / "train").num_samples == 24
        return [rows_start.time.time() + 5, 2.0, 0]

    monkeypatch.setattr(rows_start, "child", child)
    outcome = row(rows_start, "R8").measure(Options(rounds=2, small=True))
    plausible(outcome)
    assert statistics.median(outcome.values) == pytest.approx(5, abs=1)
    assert len(started) == 2


def test_a_run_that_does_not_resume_is_no_resumed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_start, "child", lambda script, *words: [0.0, 0.0, 0])
    with pytest.raises(RuntimeError, match="at step 0 of an epoch: not resumed"):
        rows_start.Job(tmp_path, small=True).seconds(resumed=True)


def test_without_a_gpu_its_rows_say_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {each.verdict(each.measure(SMALL)) for each in rows_gpu.ROWS} == {"no GPU"}


def test_what_the_gpu_rows_measure_runs_on_a_cpu(monkeypatch):
    monkeypatch.setattr(rows_gpu, "_gpu", lambda: CPU.device)
    monkeypatch.setattr(rows_gpu, "_hardware", lambda device: CPU)
    peaks = []
    monkeypatch.setattr(rows_gpu, "_peak_gib", lambda device, work, beyond: peaks.append(beyond) or (work() and 3.0))
    outcomes = [each.measure(SMALL) for each in rows_gpu.ROWS]
    for outcome in outcomes:
        plausible(outcome)
    for outcome in outcomes[:2]:
        base, own = outcome.ways
        assert outcome.values == pytest.approx([own.values[0] / base.values[0]])
    assert outcomes[2].values == outcomes[2].ways[0].values
    assert outcomes[3].values == outcomes[3].ways[2].values == outcomes[4].values == [3.0]
    assert peaks == [True] * 4 + [False]  # of a whole step, all that is there counts
    assert [way.name for way in outcomes[3].ways] == [
        "plain, 32 pairs",
        "stec, 32 pairs",
        "stec, 64 pairs",
        "stec, 128 pairs",
    ]
    base, own = outcomes[5].ways
    assert outcomes[5].values == pytest.approx([base.values[0] / own.values[0]])


def test_growth_of_an_index_and_of_a_batch(tmp_path):
    splits.shards(tmp_path, 2, [{"__key__": f"{number}", "txt": b"x"} for number in range(3)])
    assert set(growth._index(str(tmp_path))) == {"open", "mib", "order"}
    curve = growth.batch(SMALL)
    assert all(len(values) == len(curve.places) for values in curve.lines.values())
    growth.plot([curve, curve._replace(log=False)], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[1:4] == b"PNG"


def test_growth_with_processes():
    curve = growth.workers(SMALL)
    assert list(curve.places) == [0, 1]
    assert all(rate > 0 for values in curve.lines.values() for rate in values)


def test_a_rank_tells_its_rate(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    assert growth._rank(4) > 0
