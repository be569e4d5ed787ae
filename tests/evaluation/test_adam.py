"""The reader that is trained step by step: it goes where scikit-learn's solver says that it must."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from stec.errors import UsageError
from stec.evaluation.adam import Adam, adam, fit
from stec.evaluation.features import Table


def overlapping(num: int, seed: int, classes: int = 3) -> Table:
    """Classes that no plane parts: the best weights are finite, and unique but for a shift of all classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (num,), generator=generator)
    centres = torch.randn(classes, 4, generator=torch.Generator().manual_seed(9))
    return Table(centres[y] + torch.randn(num, 4, generator=generator), y)


def test_long_enough_it_is_the_maximum_likelihood_fit():
    train = overlapping(300, 0)
    weight, bias = fit(train, lr=0.03, epochs=600, batch_size=300, seed=0)
    best = LogisticRegression(C=1e9, tol=1e-8, max_iter=5000).fit(train.x.double().numpy(), train.y.numpy())
    expected = torch.from_numpy(best.predict_log_proba(train.x.double().numpy())).float()
    torch.testing.assert_close(F.log_softmax(F.linear(train.x, weight, bias), dim=1), expected, atol=0.02, rtol=0)


def test_steps_are_those_of_the_published_protocol():
    """A slow twin: Xavier-normal weights, a new order each epoch, batches in turn, Adam at a constant rate."""
    train, options = overlapping(50, 1), {"lr": 0.01, "epochs": 3, "batch_size": 20}
    weight, bias = fit(train, seed=4, **options)
    generator = torch.Generator().manual_seed(4)
    linear = nn.Linear(4, 3)
    nn.init.xavier_normal_(linear.weight, generator=generator)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.01)
    for _ in range(3):
        order = torch.randperm(50, generator=generator)
        for rows in (order[:20], order[20:40], order[40:]):
            optimizer.zero_grad()
            (-F.log_softmax(linear(train.x[rows]), dim=1)[range(len(rows)), train.y[rows]]).mean().backward()
            optimizer.step()
    torch.testing.assert_close(weight, linear.weight.detach())
    torch.testing.assert_close(bias, linear.bias.detach())


def test_the_seed_decides_and_the_callers_generator_is_left_alone():
    train = overlapping(100, 0)
    options = {"lr": 0.01, "epochs": 2, "batch_size": 32}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again, other = (fit(train, seed=seed, **options)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_without_a_label_are_left_out_and_unheard_of_classes_are_errors():
    train, test = overlapping(200, 0), overlapping(100, 1)
    noise = Table(torch.full((50, 4), 1e3), torch.full((50,), -1))
    options = {"lr": 0.05, "epochs": 40, "batch_size": 64}
    known = adam(train, test, **options)
    both = (Table(torch.cat([t.x, noise.x]), torch.cat([t.y, noise.y])) for t in (train, test))
    assert adam(*both, **options) == known > 0.6
    strangers = Table(torch.cat([test.x, test.x]), torch.cat([test.y, torch.full_like(test.y, 7)]))
    assert adam(train, strangers, **options) == known / 2
    for empty in ((noise, test), (train, noise)):
        with pytest.raises(UsageError, match="needs labels"):
            adam(*empty)


def test_the_configured_one_is_the_same_and_refuses_what_makes_no_sense():
    train, test = overlapping(100, 0), overlapping(50, 1)
    options = {"lr": 0.02, "epochs": 5, "batch_size": 10, "seed": 3}
    assert Adam(**options).accuracy(train, test) == adam(train, test, **options)
    assert "lr 0.02, 5 epochs, 10 rows a step" in Adam(**options).describe()
    for key, value in (("lr", 0.0), ("lr", float("inf")), ("epochs", 0), ("batch_size", 0), ("seed", -1)):
        with pytest.raises(UsageError, match=rf"^reader\.{key}={value} must be"):
            Adam(**{key: value})
