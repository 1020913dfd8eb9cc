"""A chart of some curves as SVG, for docs; no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLORS = ("#0b7285", "#c92a2a", "#5f3dc4")
Curve = Sequence[tuple[float, float]]


def svg(panels: Mapping[str, Mapping[str, Curve]], y_label: str, lines: Mapping[str, float]) -> str:
    """Panels side by side, titled by their x axis; `lines` are drawn across at their y."""
    wide, high = 430, 330
    values = [y for curves in panels.values() for curve in curves.values() for _, y in curve]
    low, top = min([*values, *lines.values()]) - 0.05, min(max(values), 3.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide * len(panels)} {high}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for i, (title, curves) in enumerate(panels.items()):
        parts += _panel(title, curves, y_label, lines, (low, top), (i * wide, wide, high))
    return "\n".join([*parts, "</svg>\n"])


def _panel(
    title: str, curves: Mapping[str, Curve], y_label: str, lines: Mapping[str, float],
    span: tuple[float, float], place: tuple[int, int, int],
) -> list[str]:  # fmt: skip
    left, wide, high = place
    low, top = span
    x0, x1, y0, y1 = left + 52, left + wide - 14, high - 42, 18
    most = max((x for curve in curves.values() for x, _ in curve), default=1.0)

    def at(x: float, y: float) -> str:
        down = y1 + (top - min(y, top)) / (top - low) * (y0 - y1)
        return f"{x0 + x / most * (x1 - x0):.1f},{down:.1f}"

    parts = [f'<path d="M{x0} {y1}V{y0}H{x1}" fill="none" stroke="#868e96"/>']
    for k in range(5):
        y, x = low + (top - low) * k / 4, most * k / 4
        _, down = at(0, y).split(",")
        across, _ = at(x, low).split(",")
        parts.append(
            f'<text x="{x0 - 6}" y="{float(down) + 4:.0f}" text-anchor="end" fill="#495057">{y:.2f}</text>'
        )
        parts.append(f'<text x="{across}" y="{y0 + 16}" text-anchor="middle" fill="#495057">{x:.0f}</text>')
    parts.append(f'<text x="{(x0 + x1) / 2}" y="{high - 8}" text-anchor="middle">{escape(title)}</text>')
    where = f'x="{left + 13}" y="{high / 2}" transform="rotate(-90 {left + 13} {high / 2})"'
    parts.append(f'<text {where} text-anchor="middle">{escape(y_label)}</text>')
    for name, y in lines.items():
        _, down = at(0, y).split(",")
        parts.append(f'<path d="M{x0} {down}H{x1}" stroke="#adb5bd" stroke-dasharray="4 4"/>')
        parts.append(
            f'<text x="{x1}" y="{float(down) - 4:.0f}" text-anchor="end" fill="#868e96">{escape(name)}</text>'
        )
    for k, (name, curve) in enumerate(curves.items()):
        color = COLORS[k % len(COLORS)]
        points = " ".join(at(x, y) for x, y in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(
            f'<text x="{x1}" y="{y1 + 16 + 16 * k}" text-anchor="end" fill="{color}">{escape(name)}</text>'
        )
    return parts
