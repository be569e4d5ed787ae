"""Words that no command can do anything with: one sentence each, whatever is wrong with the file they name."""

import pytest


@pytest.mark.fault(48, "an unknown key", "refused, with the nearest name")
def test_an_unknown_key(train, seen):
    ended = train("training.epoch=3")
    assert ended.code == 2
    assert "did you mean 'epochs'" in ended.refusal
    seen(ended)


@pytest.mark.fault(48, "a value of the wrong type", "refused, with the one expected")
def test_another_type(train, seen):
    ended = train("training.epochs=many")
    assert ended.code == 2
    assert "int was expected" in ended.refusal
    seen(ended)


@pytest.mark.fault(48, "a value that is none of those there are", "refused, with those there are")
def test_no_such_choice(train, seen):
    ended = train("hardware.precision=fp8")
    assert ended.code == 2
    assert "bf16" in ended.refusal
    seen(ended)


@pytest.mark.fault(48, "a value out of range", "refused, with the range")
def test_out_of_range(train, seen):
    ended = train("training.epochs=0")
    assert ended.code == 2
    assert "at least 1" in ended.refusal
    seen(ended)


@pytest.mark.fault(49, "an unknown recipe", "refused, with the nearest name and all there are")
def test_an_unknown_recipe(train, seen):
    ended = train("recipe=my_imges")
    assert ended.code == 2
    assert "did you mean 'my_images'? There is: cifar" in ended.refusal
    seen(f"exit code 2: {ended.refusal.split(' There is: ')[0]} There is: ...")


LONG = "a" * 300
# What these commands once ended in was a traceback.
LINES = [
    ["stec-train", "recipe=my_images", "data=shards", "hydra.run.dir=/proc/stec"],
    ["stec-train", "recipe=my_images", f"data={LONG}"],
    ["stec-train", "recipe=my_images", "data=shards", f"run_dir={LONG}"],
    ["stec-train", "recipe=my_images", "data=shards", "run_dir=file/run"],
    ["stec-train", "-m", "recipe=my_images", "data=shards", "seed=0", "hydra.sweep.dir=/proc/stec"],
    ["stec-eval", "loop", "data=shards"],
    ["stec-eval", LONG, "data=shards"],
    ["stec-eval", "action", "file", "file", "--model", "loop"],
    ["stec-export", "loop"],
    ["stec-export", LONG],
    ["stec-report", "dynamics", LONG],
    ["stec-report", "pick", LONG, "file"],
    ["stec-report", "table=1", "--ledger", LONG],
    ["stec-shards", "ls", LONG],
    ["stec-shards", "index", LONG],
    ["stec-shards", "pack", LONG, "--packer", "image_folder", "--out", "out"],
    ["stec-doctor", "speed", f"data={LONG}"],
]


def test_a_name_that_leads_nowhere(command, place):
    """Names longer than a file system takes, links that lead to themselves, files where folders are to be."""
    (place / "loop").symlink_to("loop")
    (place / "file").write_bytes(bytes(range(256)))
    for started in [command.start(*line) for line in LINES]:
        ended = started.wait()
        assert ended.code == 2
        assert len(ended.refusal) < 500
