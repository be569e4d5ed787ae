"""profile=true: a run that is looked into learns the same, tells once what limits it, and leaves a trace."""

import json
import time
from itertools import count
from types import SimpleNamespace

import pytest
import torch
import toy_run
from torch.autograd import DeviceType
from toy_source import SPACE, Corners, Sources, memory

from stec.errors import DataError
from stec.training import limits, log, phases, profile
from stec.training.limits import Account, Augment, augment_of, loading, verdict
from stec.training.loop import train
from stec.training.making import PARTS, Making, time_making
from stec.training.options import Hardware
from stec.training.phases import PHASES, Phases
from stec.training.profile import Profile, computed
from stec.training.run import harmless

CPU = torch.device("cpu")


@pytest.fixture
def ticks(monkeypatch):
    """A clock that goes on by one second whenever somebody looks at it."""
    clock = count()
    monkeypatch.setattr(phases.time, "perf_counter", lambda: float(next(clock)))


def test_a_phase_lasts_until_the_next_one_begins(ticks):
    watch = Phases(CPU)
    watch.begin("wait")  # nobody looks yet
    watch.on = True
    scale = watch.around(lambda loss: 2 * loss, "forward", then="backward")
    whole = watch.around(lambda loss: scale(loss) + 1, "forward", then="optimiser")
    watch.begin("wait")
    assert whole(3) == 7
    watch.begin("wait")
    # wait, forward, forward, backward, optimiser, wait: one tick each
    assert watch.seconds() == dict.fromkeys(PHASES, 0.0) | {
        "wait": 2.0,
        "forward": 2.0,
        "backward": 1.0,
        "optimiser": 1.0,
    }
    assert sum(watch.seconds().values()) == 0
    with pytest.raises(ZeroDivisionError):
        watch.around(lambda: 1 / 0, "augment", then="other")()
    watch.stop()
    watch.begin("wait")
    assert watch.seconds() == dict.fromkeys(PHASES, 0.0) | {"augment": 1.0, "other": 1.0}


def made():
    return Making(dict.fromkeys(PARTS, 0.001))


@pytest.fixture
def looked_into(monkeypatch):
    """toy_run.go, looked into; make: what times the parts of a batch."""

    def go(*where, make=made, **options):
        def watched(*given, **named):
            train(*given, **named, profile=Profile(given[6], given[5], make))

        monkeypatch.setattr(toy_run, "train", watched)
        return toy_run.go(*where, **options)

    return go


class Recorder:
    """Stands for torch's profiler, which takes seconds."""

    made: list["Recorder"]

    def __init__(self, **options):
        self.calls = []
        self.made.append(self)

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def export_chrome_trace(self, path):
        self.calls.append("export")


@pytest.fixture
def recorders(monkeypatch):
    Recorder.made = []
    monkeypatch.setattr(profile.profiler, "profile", Recorder)
    return Recorder.made


def told(directory):
    return [line.split(" INFO ", 1)[-1] for line in (directory / "train.log").read_text().splitlines()]


def test_a_run_that_is_looked_into_learns_the_same(tmp_path, looked_into, monkeypatch):
    monkeypatch.setattr(profile, "STEPS", 3)
    stec = looked_into(tmp_path / "one")
    (account,) = [line for line in told(tmp_path / "one") if line.startswith("profile: ")]
    assert account.startswith("profile: steps 11 to 13, ")
    assert "16 samples" in account
    text = "\n".join(told(tmp_path / "one"))
    for phase in PHASES:
        assert f"\n  {phase} " in text
    assert "one core makes 200 samples/s: read 20%, open 20%, draw 20%, decode 20%, stack 20%" in text
    assert text.count(" limits: ") == 1
    trace = json.loads((tmp_path / "one" / "trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    for phase in ("transfer", "augment", "backward", "optimiser"):
        assert names.count(phase) == 3
    assert names.count("wait") >= 3
    monkeypatch.undo()
    plain = toy_run.go(tmp_path / "two")
    for p, q in zip(stec.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)
    assert (tmp_path / "one/metrics.jsonl").read_text() == (tmp_path / "two/metrics.jsonl").read_text()
    assert not (tmp_path / "two/trace.json").exists()


def test_what_the_profile_takes_is_in_no_progress_line(tmp_path, looked_into, recorders, monkeypatch):
    """Here a day, twice: while the profiler starts, and while the parts of a batch are timed."""
    spent, timings, record = [0.0], [], toy_run.Run.record

    def day(*given):
        spent[0] += 86_400.0
        return made()

    def recorded(self, epoch, values, total=None, timing=None):
        timings.append((self.step, timing))
        record(self, epoch, values, total, timing)

    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + spent[0], monotonic=time.monotonic)
    monkeypatch.setattr(log, "time", clock)
    monkeypatch.setattr(Recorder, "start", day)
    monkeypatch.setattr(toy_run.Run, "record", recorded)
    looked_into(tmp_path, make=day)
    assert spent[0] == 2 * 86_400.0
    assert "profile: steps 11 to 20" in "\n".join(told(tmp_path))
    after = {step: timing for step, timing in timings if timing is not None}
    assert {12, 24} <= set(after)  # steps 9 to 12, and 21 to 24
    for timing in after.values():
        assert timing.rate > 1  # 64 samples in a day would be 0.0007 a second
        assert timing.data_wait <= 1


def test_a_short_run_and_one_that_goes_on(tmp_path, looked_into, recorders):
    looked_into(tmp_path, training={"stop_after": 1})
    assert "profile=true: nothing is left of this run that could be looked into" in told(tmp_path)
    looked_into(tmp_path, training={"stop_after": 6})  # two of the 5 warm up, the last is not seen
    accounts = [line for line in told(tmp_path) if line.startswith("profile: ")]
    assert [line.partition(",")[0] for line in accounts] == ["profile: steps 4 to 5"]
    assert harmless("profile")


def test_a_loss_that_is_not_finite_ends_it_as_ever(tmp_path, looked_into, recorders):
    with pytest.raises(toy_run.StecError, match="not a finite number"):
        looked_into(tmp_path, stream=toy_run.Stream(poison=13), training={"log_every": 8})
    assert [recorder.calls for recorder in recorders] == [["start", "stop"]]


@pytest.mark.parametrize("decoder", [Sources(), Corners()], ids=["sources", "views"])
def test_the_parts_of_a_batch_are_timed_and_their_sum_is_the_whole(decoder):
    threads = torch.get_num_threads()
    making = time_making(memory(), decoder, SPACE, num_views=2, batch_size=4, least=0.05)
    assert tuple(making.seconds) == PARTS
    assert all(seconds > 0 for seconds in making.seconds.values())
    assert making.rate == pytest.approx(1 / sum(making.seconds.values()))
    assert torch.get_num_threads() == threads


def test_a_damaged_sample_is_the_loader_s_to_report(tmp_path, looked_into, recorders):
    def fails():
        raise DataError("toy-0.tar: 0003 is damaged.")

    looked_into(tmp_path, make=fails, training={"stop_after": 4})
    assert "the parts of a batch could not be timed: toy-0.tar: 0003 is damaged." in told(tmp_path)


def account(making=None, busy=None, **seconds):
    return Account(dict.fromkeys(PHASES, 0.0) | seconds, 100, making, busy)


def cpu(**options):
    return Hardware(device="cpu", precision="fp32", **options)


def gpu(**options):
    """What a GPU's options look like where there is none."""
    hardware = cpu(**options)
    hardware.device = torch.device("cuda", 0)
    return hardware


NONE, EXACT, FAST = Augment(), Augment(told=True), Augment(told=True, fast=True)


def test_the_verdict_names_what_limits(monkeypatch):
    monkeypatch.setattr(limits, "cores", lambda: 8)
    slow = Making({"read": 0.001, "open": 0.0, "draw": 0.0, "decode": 0.009, "stack": 0.0})
    waits = account(slow, wait=0.5, forward=0.2, backward=0.05)
    assert verdict(waits, cpu(num_workers=2), NONE) == (
        "the loader limits: 2 loading processes deliver 133 samples/s, the step could take 400: one core makes"
        " 100, so set hardware.num_workers=4."
    )
    assert "without loading processes it delivers 133" in verdict(waits, cpu(num_workers=0), NONE)
    assert "the disk is slow" in loading(Making({"read": 1.0, "decode": 0.1}), 100, 1)
    assert "from memory come at" in verdict(account(wait=1.0, forward=1.0), cpu(), NONE)
    assert "training.log_every" in verdict(account(other=0.6, forward=0.3), cpu(), NONE)
    assert "larger batch_size" in verdict(account(optimiser=0.6, forward=0.3), cpu(), NONE)


def test_cores_are_counted_for_all_who_need_one(monkeypatch):
    slow = Making({"read": 0.001, "decode": 0.009})
    for num, told in ((8, "8 cores"), (2, "2 cores"), (1, "1 core")):
        monkeypatch.setattr(limits, "cores", lambda num=num: num)
        assert loading(slow, 750, 1) == (
            f"one core makes 100, so 8 loading processes would be needed, and this process has {told} for them and the"
            " step; decoding takes longest: pack smaller samples, or set dataset.resident=true if they fit."
        )
    monkeypatch.setattr(limits, "cores", lambda: 9)
    assert loading(slow, 750, 1) == "one core makes 100, so set hardware.num_workers=8."
    assert loading(slow, 750, 8).startswith("with 8 cores to themselves they could deliver 800; decoding takes longest")
    assert loading(slow, 90, 1).startswith("with a core to itself it could deliver 100; decoding takes longest")


def test_what_to_try_is_not_what_is_done_already():
    busy = account(Making({"read": 0.001, "decode": 0.001}), forward=0.3, backward=0.6, augment=0.1)
    told = verdict(busy, cpu(num_workers=2, micro_batch=10), NONE)
    assert "forward and backward on cpu take 90% of the time" in told
    assert "a larger hardware.micro_batch, or none" in told
    assert "or a GPU" in told
    assert "channels_last" not in told
    assert told.endswith("The loader keeps up: 2 x 500 = 1,000 samples/s at most.")
    assert verdict(busy, cpu(num_workers=0), NONE).endswith(
        " Without loading processes one core makes 500 samples/s: read 50%, decode 50%."
    )
    assert "hardware.channels_last=true" in verdict(busy, cpu(channels_last=False), NONE)
    idle = busy._replace(busy=0.4)
    assert "the GPU too slowly, which computes 40% of the time: try hardware.compile=true or" in verdict(
        idle, gpu(), NONE
    )
    assert "the time: try a larger batch_size." in verdict(idle, gpu(compile=True), NONE)
    assert "hardware.compile=true" in verdict(busy, gpu(), NONE)
    assert "hardware.compile=true" not in verdict(busy, gpu(compile=True), NONE)
    moves = account(busy.making, transfer=0.6, forward=0.3)
    assert "dataset.resident=true" in verdict(moves, cpu(), NONE)
    assert "dataset.resident=true" not in verdict(moves._replace(making=None), cpu(), NONE)


def test_fast_augmentation_is_advised_where_it_helps():
    acts = account(augment=0.6, forward=0.4)  # 100 samples/s
    for augment, advised in ((EXACT, True), (FAST, False), (NONE, False)):
        assert ("augment=fast" in verdict(acts, cpu(), augment)) == advised
    moved = EXACT._replace(moved=True)
    makes = acts._replace(making=Making({"decode": 0.01}))  # one core as many
    assert "augment=fast" in verdict(makes, cpu(num_workers=1), moved)
    assert "augment=fast" in verdict(makes, gpu(num_workers=1), EXACT)
    assert "augment=fast" in verdict(makes, gpu(num_workers=2), moved)
    assert "augment=fast" not in verdict(makes, gpu(num_workers=1), moved)
    assert "augment=fast" not in verdict(makes, gpu(num_workers=0), moved)


def test_exact_augmentation_is_advised_where_decoding_limits_a_gpu():
    waits = account(Making({"read": 0.0, "decode": 0.1}), wait=0.6, forward=0.4)
    moved, gives = FAST._replace(moved=True), "augment=exact leaves more of the actions to the device"
    assert gives in verdict(waits, gpu(num_workers=99), moved)
    assert gives not in verdict(waits, cpu(num_workers=99), moved)
    assert gives not in verdict(waits, gpu(num_workers=99), FAST)
    assert gives not in verdict(waits, gpu(num_workers=99), moved._replace(fast=False))
    reads = waits._replace(making=Making({"read": 0.1, "decode": 0.0}))
    assert gives not in verdict(reads, gpu(num_workers=99), moved)


def test_who_is_told_of_augment_is_read_from_the_configuration():
    jitter, decoder = {"jitter": {"p": 1, "augment": "fast"}}, {"decoder": {"name": "toy", "augment": "fast"}}
    assert augment_of({}) == augment_of({"augment": "exact", "actions": {"window": {}}}) == NONE
    assert augment_of({"augment": "fast", "actions": jitter, "dataset": {}}) == FAST
    assert augment_of({"augment": "fast", "actions": jitter, "dataset": decoder}) == FAST._replace(moved=True)


def test_the_time_in_which_a_gpu_computed_is_that_of_its_kernels_joined():
    def event(start, end, device=DeviceType.CUDA, annotation=False):
        return SimpleNamespace(
            device_type=device, time_range=SimpleNamespace(start=start, end=end), is_user_annotation=annotation
        )

    events = [event(10, 30), event(0, 5), event(20, 25), event(28, 40), event(0, 100, annotation=True)]
    assert computed([*events, event(0, 100, device=DeviceType.CPU)]) == pytest.approx(35e-6)
    assert computed([]) == 0
