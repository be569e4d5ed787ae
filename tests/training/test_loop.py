"""The loop: what it learns, what it tells, and when it refuses or gives up."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_run import Align, Stream, complete, go, model

from stec.distributed import all_reduce_sums
from stec.errors import NonFinite, UsageError
from stec.evaluation.health import health
from stec.training import checkpoint, gradient, loop, optim, prepare
from stec.training.collapse import Watch
from stec.training.options import Hardware, Training
from stec.training.run import Run


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_tells(tmp_path, capfd):
    stec = go(
        tmp_path,
        training={"epochs": 15, "eval_every": 5, "checkpoint_every": 50},
        evaluate=lambda step: {"eval/twice": 2.0 * step},
    )
    told = lines(tmp_path)
    trained = [line for line in told if "train/loss" in line]
    assert [line["step"] for line in trained] == [1, *range(4, 89, 4), 90]
    assert trained[0]["epoch"] == pytest.approx(1 / 6)
    assert trained[0]["train/lr"] == 0
    assert trained[-1]["train/loss"] < trained[0]["train/loss"] - 0.3
    assert trained[-1]["probe/online/top1"] > 0.9
    assert {"train/loss_id", "train/loss_manip", "train/z_std", "train/rankme", "train/grad_share_manip"} <= {
        *trained[0]
    }
    evaluated = [line for line in told if "eval/twice" in line]
    assert [(line["step"], line["eval/twice"]) for line in evaluated] == [(30, 60), (60, 120), (90, 180)]
    assert not any(name.startswith("time/") for line in told for name in line)
    assert stec.training
    shown = capfd.readouterr().out
    for piece in ("2 x simclr", "train/loss_manip 1.79", "lr 0.01 -> peak 0.01", "fp32", "step 90/90", "samples/s"):
        assert piece in shown
    assert "collapsing" not in shown
    assert shown.splitlines()[-1] in (tmp_path / "train.log").read_text()


def test_the_lines_are_means_over_their_window(tmp_path):
    go(tmp_path / "each", training={"log_every": 1})
    go(tmp_path / "four", training={"log_every": 4})
    each = {line["step"]: line["train/loss_id"] for line in lines(tmp_path / "each")}
    four = {line["step"]: line["train/loss_id"] for line in lines(tmp_path / "four")}
    assert four[1] == each[1]
    assert four[4] == pytest.approx((each[2] + each[3] + each[4]) / 3)
    assert four[8] == pytest.approx(sum(each[s] for s in (5, 6, 7, 8)) / 4)


def test_one_step_is_torch_s_own(tmp_path):
    """The loop against a plain transcription, SGD and all."""
    stec = go(tmp_path, optimizer={"name": "sgd", "lr": 0.5, "weight_decay": 0.1}, training={"epochs": 2})
    twin, stream, done = model(), Stream(), 0
    flat = [p for p in twin.parameters() if p.requires_grad and p.ndim <= 1]
    deep = [p for p in twin.parameters() if p.requires_grad and p.ndim > 1]
    sgd = torch.optim.SGD([{"params": deep, "weight_decay": 0.1}, {"params": flat}], lr=1.0, momentum=0.9)
    for epoch in range(2):
        for batch in stream.batches(epoch):
            # Warm-up of one epoch of 6 steps, then half a cosine; 0.5 at batch 256 is 0.5 / 16 here.
            share = done / 6 if done < 6 else 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (done - 6) / 6)).item())
            for group in sgd.param_groups:
                group["lr"] = 0.5 / 16 * share
            sgd.zero_grad()
            twin(complete(batch)).loss.backward()
            sgd.step()
            done += 1
    for (name, p), q in zip(stec.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6), name


def test_collapse_is_named_once_and_only_where_it_happens(tmp_path, caplog):
    small = {"epochs": 25, "log_every": 10, "checkpoint_every": 1000}
    go(tmp_path / "bad", stec=model(identity=Align()), training=small, optimizer={"name": "adamw", "lr": 3e-2})
    verdicts = [r.getMessage() for r in caplog.records if "collapsing" in r.getMessage()]
    assert len(verdicts) == 1
    assert "z_std" in verdicts[0]
    caplog.clear()
    go(tmp_path / "good", training=small, optimizer={"name": "adamw", "lr": 3e-2})
    assert not any("collapsing" in r.getMessage() for r in caplog.records)


def test_a_representation_that_was_never_there_is_named_too():
    watch = Watch()
    assert watch.look(1, 5e-4, 1.0) is None
    assert "collapsing" in watch.look(10, 4e-4, 1.0)
    steady = Watch()  # narrow from the start, but not collapsed
    assert not any(steady.look(step, 0.01, 1.2) for step in range(5))


def test_the_verdict_outlives_the_process(tmp_path):
    """The report of a run that went on must say what an earlier part of it found."""
    collapsing = {"epochs": 25, "log_every": 10, "checkpoint_every": 1000}
    chosen = {"training": collapsing | {"stop_after": 140}, "optimizer": {"name": "adamw", "lr": 3e-2}}
    go(tmp_path, stec=model(identity=Align()), **chosen)
    verdict = checkpoint.load(tmp_path / "checkpoints" / "last")["log"]["watch"]["verdict"]
    assert "collapsing" in verdict
    seen = []
    stop = Run.stop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "stop", lambda run: (seen.append(run.verdict), stop(run)))
        chosen["training"] = collapsing | {"stop_after": 145}
        go(tmp_path, stec=model(identity=Align()), **chosen)
    assert seen[0] == verdict
    assert (tmp_path / "train.log").read_text().count("collapsing") == 1


def test_the_health_of_a_step_is_the_evaluation_s():
    with torch.no_grad():
        features = model().encode(tuple(torch.randn(2, 20, 12)))
    told = {name: float(total / count) for name, (total, count) in gradient.health(features).items()}
    expected = health(features[0].pooled, features[0].pooled)
    assert told == {"train/z_std": pytest.approx(expected["std"]), "train/rankme": pytest.approx(expected["rankme"])}


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(NonFinite) as caught:
        go(tmp_path, stream=Stream(poison=13), training={"log_every": 8})
    told = str(caught.value)
    assert "train/loss_id" in told
    assert "step 14" in told
    assert "step-00000010.ckpt" in told
    assert caught.value.exit_code == 3
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-00000010.ckpt"


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    stec, calls = model(), iter(range(1000))
    stec.probes["online"].linear.bias.register_hook(lambda g: g * torch.nan if next(calls) >= 3 else g)
    with pytest.raises(NonFinite, match=r"probes\.online\.linear\.bias .* step 4 .*step-00000003\.ckpt"):
        go(tmp_path, stec=stec, training={"checkpoint_every": 1, "log_every": 100})
    states = [checkpoint.load(p) for p in checkpoint.stored(tmp_path / "checkpoints")]
    assert [state["step"] for state in states] == [2, 3]
    assert all(t.isfinite().all() for state in states for t in state["model"].values())


def test_stop_after_leaves_early_and_the_run_is_not_finished(tmp_path):
    go(tmp_path, training={"stop_after": 7})
    assert [p.name for p in checkpoint.stored(tmp_path / "checkpoints")] == ["step-00000005.ckpt", "step-00000007.ckpt"]
    assert not (tmp_path / "finished").exists()
    stream = Stream()
    go(tmp_path, training={"stop_after": 7}, stream=stream)
    assert stream.asked == []


def test_accumulation_is_refused_where_it_is_not_exact(tmp_path):
    with pytest.raises(UsageError, match=r"hardware\.micro_batch"):
        go(tmp_path, training={"accumulate": 2})


def test_accumulation_is_the_whole_batch_where_samples_stand_alone(tmp_path):
    class Alone(Align):
        def forward(self, features, views):
            losses = (features[0].pooled - features[1].pooled - 1).square().mean(dim=1)
            return gradient.Out(losses.mean(), {"train/loss_id": gradient.tally(losses)})

    sgd = {"name": "sgd", "lr": 8.0}
    twice = go(tmp_path / "a", stec=model(identity=Alone()), training={"accumulate": 4}, optimizer=sgd)
    once = go(tmp_path / "b", stec=model(identity=Alone()), optimizer=sgd)
    assert not torch.allclose(once.encoder.first.weight, model().encoder.first.weight, atol=1e-2)
    for p, q in zip(twice.parameters(), once.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match=r"accumulate=3 must divide the 16"):
        go(tmp_path / "c", stec=model(identity=Alone()), training={"accumulate": 3})
    with pytest.raises(UsageError, match="only one"):
        go(tmp_path / "d", stec=model(identity=Alone()), training={"accumulate": 2}, hardware={"micro_batch": 4})


def test_ema_is_the_running_average(tmp_path):
    seen: list[torch.Tensor] = []
    stec = model()

    def peek(batch):
        seen.append(stec.encoder.first.weight.detach().clone())
        return complete(batch)

    go(tmp_path, stec=stec, training={"ema": 0.8, "epochs": 2}, complete=peek)
    weights = [*seen[1:], stec.encoder.first.weight.detach()]  # after each step
    average = weights[0]
    for w in weights[1:]:
        average = 0.8 * average + 0.2 * w
    stored = checkpoint.load(tmp_path / "checkpoints" / "last")["ema"]
    assert stored.keys() == stec.encoder.state_dict().keys()
    assert torch.allclose(stored["first.weight"], average, atol=1e-6)


def test_clipping_leaves_the_probe_out(tmp_path):
    """A small norm bound, with plain SGD: the encoder's and heads' step has that norm, the probe's step is its own."""
    stec = model()
    start = {name: p.detach().clone() for name, p in stec.named_parameters()}
    sgd = {"name": "sgd", "lr": 16.0, "momentum": 0.0, "weight_decay": 0.0}
    go(tmp_path, stec=stec, training={"clip_grad": 1e-3, "stop_after": 1, "warmup_epochs": 0.0}, optimizer=sgd)
    moved = {name: (p.detach() - start[name]).norm() for name, p in stec.named_parameters()}
    inside = torch.stack([m for name, m in moved.items() if not name.startswith("probes.")]).norm()
    assert inside == pytest.approx(1e-3, rel=1e-2)
    assert moved["probes.online.linear.weight"] > 0.01


def test_bf16_runs_close_to_float32(tmp_path):
    go(tmp_path / "fp32")
    go(tmp_path / "bf16", hardware={"precision": "bf16"})
    a, b = lines(tmp_path / "fp32"), lines(tmp_path / "bf16")
    assert a[0]["train/loss"] == pytest.approx(b[0]["train/loss"], rel=0.02)
    assert a[0]["train/loss"] != b[0]["train/loss"]
    stored = checkpoint.load(tmp_path / "bf16/checkpoints/last")["model"]
    assert {name: t.dtype for name, t in stored.items()} == {name: t.dtype for name, t in model().state_dict().items()}


def test_memory_that_runs_out_ends_in_one_sentence(tmp_path):
    def greedy(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 TiB")

    with pytest.raises(UsageError, match=r"^cpu ran out of memory with 16 samples .*: try hardware\.micro_batch=8\.$"):
        go(tmp_path / "a", complete=greedy)
    with pytest.raises(UsageError, match=r"try hardware\.micro_batch=3\."):
        go(tmp_path / "b", complete=greedy, hardware={"micro_batch": 6})
    with pytest.raises(UsageError, match="one sample"):
        go(tmp_path / "c", complete=greedy, hardware={"micro_batch": 1})


def test_four_dimensional_samples_follow_the_memory_format():
    views = complete(next(Stream().batches(0)))
    square = views._replace(x=(torch.randn(2, 3, 4, 4), torch.randn(2, 5)))
    moved = prepare.contiguous(square, Hardware(device="cpu", channels_last=True))
    assert moved.x[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.x[0], square.x[0])
    assert moved.x[1] is not None
    assert prepare.contiguous(square, Hardware(device="cpu", channels_last=False)) is square
    stec = model()
    stec.encoder.conv = nn.Conv2d(3, 4, 3)
    prepare.place(stec, Hardware(device="cpu", channels_last=True))
    assert stec.encoder.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for told, which in ((True, stec), (False, model())):
        optimizer = optim.sgd(which, 8, lr=0.1)
        lines = prepare.announcement(which, optimizer, Training(epochs=11), Hardware(device="cpu"), 5)
        assert ["channels_last" in line for line in lines if line.startswith("machine: ")] == [told]


def test_the_encoder_alone_is_compiled_and_keys_stay(monkeypatch):
    called = []
    stec = model()
    keys = list(stec.state_dict())
    monkeypatch.setattr(nn.Module, "compile", lambda self: called.append(self))
    prepare.gradient_of(stec, Training(epochs=11), Hardware(device="cpu", compile=True), lambda loss: loss)
    assert called == [stec.encoder]
    assert list(stec.state_dict()) == keys


def test_steps_are_seeded_apart():
    draws = []
    for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0)):
        prepare.seed_step(seed, step, torch.device("cpu"))
        draws.append(torch.rand(()).item())
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


def test_what_ranks_add_up_at_the_end_lies_on_their_device(tmp_path, monkeypatch):
    """NCCL knows nothing of the CPU, where a mere number would be taken to lie."""
    asked = []
    monkeypatch.setattr(loop, "all_reduce_sums", lambda sums: asked.append(sums) or all_reduce_sums(sums))
    go(tmp_path, training={"epochs": 2})
    assert asked
    assert all(isinstance(one, torch.Tensor) for sums in asked for pair in sums.values() for one in pair)
