"""Text that may come from anywhere (class names, paths), made fit for HTML; and numbers, made fit for a reader."""

import html
import math

_SHIFT = {code: "�" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\t\n"}


def escape(text: str) -> str:
    """`text` as the content of an element or of a quoted attribute; control characters are shown, not obeyed."""
    return html.escape(text.translate(_SHIFT), quote=True)


def shown(value: float, unit: str = "") -> str:
    """A measured value with its unit: shares as per cent, others with as many digits as tell something."""
    if not math.isfinite(value):
        return "–"
    if unit == "%":
        return f"{100 * value:.1f} %"
    # A negative zero would be read as a finding.
    digits = f"{value:.2f}" if unit == "bits" else number(value)
    return f"{digits.removeprefix('-') if float(digits) == 0 else digits} {unit}".strip().replace("-", "−")


def number(value: float) -> str:
    """Three significant digits, large numbers in thousands and millions: 12500 -> 12.5k."""
    if abs(value) >= 999_500:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 9_995:
        return f"{value / 1e3:.3g}k"
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
