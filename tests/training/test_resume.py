"""A run that was killed and started again is the run that was not: equal weights, equal metrics, to the bit."""

import json
import signal

import pytest
import torch
import toy_run
from apart import apart
from toy_run import Stream, go, model

from stec.errors import Interrupted
from stec.training import checkpoint

DETAILS = {
    "model": {"batch_norm": True, "dropout": 0.3},
    "training": {"ema": 0.9, "eval_every": 2, "clip_grad": 1.0},
}


def test_killed_without_notice_at_several_steps(tmp_path):
    """SIGKILL before step 4 (no checkpoint yet), in mid-epoch, and right before the end; each time the same command."""
    threads = torch.get_num_threads()
    assert toy_run.main(str(tmp_path / "whole"), json.dumps(DETAILS)) == 0
    for die in (3, 8, 6):  # steps made by each process: 3, from 0 to 8, from 5 to 11
        given = json.dumps({**DETAILS, "die": die})
        assert apart(toy_run.main, str(tmp_path / "cut"), given) == -signal.SIGKILL
    assert toy_run.main(str(tmp_path / "cut"), json.dumps(DETAILS)) == 0
    torch.set_num_threads(threads)
    whole, cut = (torch.load(tmp_path / name / "end.pt") for name in ("whole", "cut"))
    assert all(torch.equal(t, cut[name]) for name, t in whole.items())
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()
    ends = [checkpoint.load(tmp_path / name / "checkpoints" / "last") for name in ("whole", "cut")]
    assert all(torch.equal(t, ends[1]["ema"][name]) for name, t in ends[0]["ema"].items())


@pytest.mark.parametrize(
    ("optimizer", "stop"),
    [("adamw", 1), ("adamw", 6), ("adamw", 11), ("adamw", 23), ("adamw", 24), ("sgd", 11), ("lars", 11)],
)
def test_left_and_taken_up_at_any_step(tmp_path, optimizer, stop):
    """Also at an epoch's end (6), inside a window of log lines (11), and at the very end."""
    chosen = {"name": optimizer, "lr": 0.01}
    whole = go(tmp_path / "whole", stec=model(dropout=0.3), optimizer=chosen)
    go(tmp_path / "cut", stec=model(dropout=0.3), optimizer=chosen, training={"stop_after": stop})
    stream = Stream()
    cut = model(seed=5, dropout=0.3)  # what it begins as does not matter: all comes from the checkpoint
    go(tmp_path / "cut", stec=cut, optimizer=chosen, stream=stream)
    assert stream.asked == [(s // 6, s % 6) for s in range(stop, 24)]
    if stop < 24:
        assert all(torch.equal(t, cut.state_dict()[name]) for name, t in whole.state_dict().items())
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()


def test_a_signal_in_between_changes_nothing(tmp_path):
    whole = go(tmp_path / "whole")

    def pressed(step: int) -> None:
        if step == 12:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        go(tmp_path / "cut", training={"eval_every": 2}, evaluate=pressed)
    assert caught.value.exit_code == 143
    assert checkpoint.latest(tmp_path / "cut/checkpoints").name == "step-00000012.ckpt"
    cut = go(tmp_path / "cut")
    assert all(torch.equal(t, cut.state_dict()[name]) for name, t in whole.state_dict().items())
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()


def test_a_damaged_newest_checkpoint_costs_some_steps_and_nothing_else(tmp_path, caplog):
    whole = go(tmp_path / "whole")
    go(tmp_path / "cut", training={"stop_after": 11})
    newest = tmp_path / "cut/checkpoints/step-00000011.ckpt"
    newest.write_bytes(newest.read_bytes()[:-100])
    cut = go(tmp_path / "cut")
    assert "passed over" in caplog.text
    assert all(torch.equal(t, cut.state_dict()[name]) for name, t in whole.state_dict().items())
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "cut/metrics.jsonl").read_text()


def test_half_a_line_of_metrics_is_forgotten(tmp_path):
    go(tmp_path, training={"stop_after": 8})
    path = tmp_path / "metrics.jsonl"
    told = path.read_text()
    path.write_text(told + '{"step": 9, "epo')
    go(tmp_path)
    assert path.read_text().startswith(told + '{"step": 12')
