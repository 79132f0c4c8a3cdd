"""Numbers as text: thousands apart, three significant digits, honest small p-values, true minus signs."""

from __future__ import annotations

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: float) -> str:
    return f"{round(value):,}".replace("-", "−")


def significant(value: float, digits: int = 3) -> str:
    """Plain notation between 0.0001 and a million, powers of ten beyond."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return power(value, digits)
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}".replace("-", "−")


def power(value: float, digits: int = 2) -> str:
    """3.1e-12 as 3.1 × 10⁻¹²; an exact zero as 0."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', '−')} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def ratio(value: float) -> str:
    """Odds ratios: two decimals as journals print them, a third near 1, where a unit's effect would vanish."""
    if value >= 10 or value < 0.1:
        return significant(value, 3 if value >= 10 else 2)
    return f"{value:.3f}" if 0.9 <= value < 1.1 else f"{value:.2f}"


def interval(low: float, high: float) -> str:
    return f"{ratio(low)}–{ratio(high)}"


def auroc(value: float) -> str:
    return f"{value:.2f}"


def size(amount: int) -> str:
    """Bytes in the unit that keeps the number short: 1 kB is 1,000 bytes."""
    for unit, step in (("MB", 1_000_000), ("kB", 1_000)):
        if amount >= step:
            return f"{amount / step:,.1f} {unit}"
    return f"{amount} B"


def seconds(value: float) -> str:
    return f"{value:,.1f}" if value >= 0.1 else f"{value:.2f}"


def shape(lengths: tuple[int, ...]) -> str:
    """`10 × 10`; a single number has no lengths and is `1`."""
    return " × ".join(f"{length:,}" for length in lengths) or "1"
