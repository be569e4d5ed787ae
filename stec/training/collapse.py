"""Is the representation still saying anything? Two numbers are watched, and there is one sentence if it is not."""

from typing import Any


class Watch:
    """Compares each measurement with the first of the run; speaks once, when two in a row have fallen far below it.

    Relative to the first, because an untrained network may begin narrow: what matters is that training narrows it.
    A spread below FLOOR is a collapse whatever the first one was. A rank below first^ENTROPY: of the entropy of the
    singular values, which is ln rank, so much is left. Measured shares of it on CIFAR-100: BYOL and VICReg without what
    keeps them from collapse .48 to .52, their spread as it was; BYOL and SimSiam at so few steps .62, others .8 and up.
    `verdict`: what was said, "" if nothing.
    """

    FALL, SPREAD, FLOOR, ENTROPY = 0.25, 0.1, 1e-3, 0.55

    def __init__(self) -> None:
        self.first: list[float] | None = None
        self.low, self.verdict = 0, ""

    def look(self, step: int, spread: float, rank: float) -> str | None:
        """A sentence, if this is where the representation is found to collapse. spread, rank: see stec.spectrum."""
        if self.first is None:
            self.first = [spread, rank]
        narrow = spread < max(self.FLOOR, min(self.SPREAD, self.FALL * self.first[0]))
        flat = rank < self.first[1] ** self.ENTROPY
        self.low = self.low + 1 if narrow or flat else 0
        if self.verdict or self.low < 2:
            return None
        what = (
            "all samples come to look alike to the encoder" if narrow else "few dimensions are left to tell samples by"
        )
        self.verdict = (
            f"step {step}: the representation is collapsing: z_std {spread:.4f} (at first {self.first[0]:.4f}), "
            f"rankme {rank:.1f} (at first {self.first[1]:.1f}); {what}"
        )
        return self.verdict

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "low": self.low, "verdict": self.verdict}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Older checkpoints only say that it spoke: it will once more.
        self.first, self.low, self.verdict = state["first"], state["low"], state.get("verdict", "")
