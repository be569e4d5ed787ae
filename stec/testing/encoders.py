"""What is promised of an encoder. Each check takes an `Encoding` and raises a Fault that says what is wrong.

Legend: B samples, T frames, D width of an output.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from stec.encoder import Encoder, Features
from stec.testing.fault import Fault, Skip, require, same, shape

_NEAR = 1e-3


class Encoding(NamedTuple):
    """make: a new encoder of the kind that is checked; x float [B, ...]: views as it is to see them, B at least 2."""

    make: Callable[[], Encoder]
    x: Tensor

    def build(self, seed: int = 0) -> Encoder:
        torch.manual_seed(seed)
        return self.make()


def outputs(one: Encoding) -> None:
    """dims names each output with its width, pooled among them; in training and in evaluation mode."""
    encoder = one.build()
    require(isinstance(encoder, Encoder), f"it is a {type(encoder).__name__}; a stec.encoder.Encoder was expected.")
    require("pooled" in encoder.dims, f"dims={encoder.dims} has no 'pooled', the representation.")
    for mode in (True, False):
        with torch.no_grad():
            features = encoder.train(mode)(one.x)
        require(isinstance(features, Features), f"it gives a {type(features).__name__}; Features were expected.")
        given = named(features)
        if lost := sorted(encoder.dims.keys() ^ given.keys()):
            have, say = ", ".join(sorted(given)), ", ".join(sorted(encoder.dims))
            raise Fault(f"dims and Features disagree on {', '.join(lost)}: dims has {say}; given are {have}.")
        for name, tensor in given.items():
            middle = [None] if name in ("local", "context") else []
            shape(tensor, [len(one.x), *middle, encoder.dims[name]], f"the output {name!r}")
            require(tensor.is_floating_point(), f"the output {name!r} is {tensor.dtype}; floats were expected.")
            require(bool(tensor.isfinite().all()), f"the output {name!r} is not finite everywhere.")


def sequences(one: Encoding) -> None:
    """An encoder of sequences says how many samples lie between frames (hop), and which frames are valid."""
    encoder = one.build().eval()
    with torch.no_grad():
        features = encoder(one.x)
    given = [t for t in (features.local, features.context) if t is not None]
    if not given:
        raise Skip("it gives no sequence")
    lengths = {t.shape[1] for t in given}
    require(len(lengths) == 1, f"local and context have different numbers of frames: {sorted(lengths)}.")
    hop, num = getattr(encoder, "hop", 0), one.x.shape[-1]
    require(isinstance(hop, int) and hop > 0, f"it gives a sequence, but hop={hop!r}: the samples between two frames.")
    (frames,) = lengths
    fits = abs(frames * hop - num) <= max(4 * hop, num // 2)
    require(fits, f"{frames} frames with a hop of {hop} samples do not span the {num} samples that it was given.")
    if features.frames is not None:
        shape(features.frames, [len(one.x)], "`frames`")
        most = int(features.frames.max())
        require(most <= frames, f"`frames` calls {most} frames valid, but there are {frames}.")


def places_of_frames(one: Encoding) -> None:
    """Frame j of `local` looks at samples around hop * j + centre: labels of places are looked up by that."""
    encoder = one.build().eval()
    if "local" not in encoder.dims or encoder.hop < 1:
        raise Skip("it gives no local frames, or no hop between them")
    # Long enough that frames in the middle see neither end.
    x = torch.cat([one.x[:1]] * 8, dim=-1).requires_grad_()
    try:
        local = encoder(x).local
    except (RuntimeError, ValueError):
        raise Skip("it takes samples of one length only") from None
    assert local is not None
    num = local.shape[1]
    middle = [3 * num // 8, 5 * num // 8]
    seen = []
    for j in middle:
        (gradient,) = torch.autograd.grad(local[0, j].square().sum(), x, retain_graph=True)
        felt = gradient[0].flatten(0, -2).abs().sum(0).nonzero().squeeze(1)
        require(len(felt) > 0, f"frame {j} of {num} looks at no sample at all.")
        seen.append(float(felt[0] + felt[-1]) / 2)
    step = (seen[1] - seen[0]) / (middle[1] - middle[0])
    told = f"frames {middle[0]} and {middle[1]} look at samples around {seen[0]:g} and {seen[1]:g}"
    require(abs(step - encoder.hop) <= 0.1 * encoder.hop, f"{told}: {step:g} a frame, but hop={encoder.hop}.")
    off = seen[0] - (encoder.hop * middle[0] + encoder.centre)
    require(
        abs(off) <= encoder.hop, f"{told}, which is {off:g} samples from where hop and centre={encoder.centre:g} say."
    )


def evaluation_mode(one: Encoding) -> None:
    """In evaluation mode it is a function of its input, which it leaves as it is."""
    encoder, before = one.build().eval(), one.x.clone()
    with torch.no_grad():
        first = named(encoder(one.x))
        again = named(encoder(one.x))
    for name, tensor in first.items():
        require(same(tensor, again[name]), f"in evaluation mode the output {name!r} differs from call to call.")
    require(same(one.x, before), "it changes its input in place.")


def alone_as_in_a_batch(one: Encoding) -> None:
    """In evaluation mode a sample's features do not depend on the others in its batch."""
    encoder = one.build().eval()
    with torch.no_grad():
        together = named(encoder(one.x))
        for i in range(len(one.x)):
            for name, tensor in named(encoder(one.x[i : i + 1])).items():
                near = same(tensor, together[name][i : i + 1], _NEAR)
                require(near, f"the output {name!r} of row {i} of a batch is another one if the row is alone.")


def gradients(one: Encoding) -> None:
    """The gradient of its outputs reaches every parameter, and is finite."""
    encoder = one.build().train()
    learnt = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    if not learnt:
        raise Skip("it has no parameters to learn")
    torch.manual_seed(0)
    torch.stack([(t * torch.randn_like(t)).sum() for t in named(encoder(one.x)).values()]).sum().backward()
    unreached = [name for name, p in learnt.items() if p.grad is None]
    require(
        not unreached,
        f"no gradient reaches {len(unreached)} parameters, {', '.join(unreached[:3])} first: none of the outputs uses"
        " them. On several ranks training would stop with an error.",
    )
    odd = [name for name, p in learnt.items() if p.grad is not None and not p.grad.isfinite().all()]
    require(not odd, f"the gradient of {', '.join(odd[:3])} is not finite.")


def state(one: Encoding) -> None:
    """The seed decides on the weights, and a state dict carries all that was learnt into a new one."""
    encoder, twin, other = one.build(0), one.build(0), one.build(1)
    for name, tensor in encoder.state_dict().items():
        require(same(tensor, twin.state_dict()[name]), f"{name} differs though torch.manual_seed was the same.")
    with torch.no_grad():
        encoder.train()(one.x)  # statistics, if it keeps some
        try:
            other.load_state_dict(encoder.state_dict(), strict=True)
        except RuntimeError as error:
            raise Fault(f"its state dict does not load into another one of its kind: {error}") from error
        first, second = named(encoder.eval()(one.x)), named(other.eval()(one.x))
    for name, tensor in first.items():
        alike = same(tensor, second[name], 1e-6)
        require(alike, f"{name!r} differs after the state dict was carried over: something learnt is not in it.")


def on_a_gpu(one: Encoding) -> None:
    """Moved to a GPU, it computes there."""
    if not torch.cuda.is_available():
        raise Skip("there is no GPU here")
    encoder = one.build().eval()
    with torch.no_grad():
        here, there = named(encoder(one.x)), named(encoder.cuda()(one.x.cuda()))
    for name, tensor in here.items():
        require(there[name].is_cuda, f"the output {name!r} leaves the GPU.")
        require(same(tensor, there[name].cpu(), 5e-2), f"the output {name!r} is another one on a GPU.")


CHECKS: tuple[Callable[[Encoding], None], ...] = (
    outputs,
    sequences,
    places_of_frames,
    evaluation_mode,
    alone_as_in_a_batch,
    gradients,
    state,
    on_a_gpu,
)


def named(features: Features) -> dict[str, Tensor]:
    """{name: output}, inner layers among them."""
    each = {"pooled": features.pooled, "local": features.local, "context": features.context}
    return {name: t for name, t in each.items() if t is not None} | (features.layers or {})
