"""Figures are right where it matters: scales, ticks, smoothing, and labels that were cut."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from penjing.jobs import svg
from penjing.jobs.figures import (
    Bar,
    Series,
    bars,
    heat_map,
    histogram,
    line_chart,
    reliability,
    smoothed,
    thinned,
)


def test_smoothing_keeps_a_straight_line_as_it_is() -> None:
    line = [(float(i), 3.0 * i) for i in range(100)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line])


def test_smoothing_and_thinning_leave_out_what_is_not_finite() -> None:
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 1.0)]
    assert smoothed(points) == thinned(points) == [(0.0, 1.0), (3.0, 1.0)]


def test_thinning_keeps_the_mean_of_a_long_curve() -> None:
    points = [(float(i), float(i % 7)) for i in range(7000)]
    found = thinned(points, 100)
    assert len(found) == 100
    assert sum(y for _, y in found) / 100 == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.88, 0.945, [0.88, 0.9, 0.92, 0.94, 0.96]),
        (3.0, 3.0, [3.0]),
        (1.0, 480.0, [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]),
    ],
)
def test_ticks_are_round_and_reach_around_the_values(low: float, high: float, wanted: list[float]) -> None:
    assert svg.ticks(low, high, 5) == pytest.approx(wanted)


def test_a_logarithmic_scale_puts_the_geometric_mean_in_the_middle() -> None:
    place = svg.scale(0.01, 1.0, 0.0, 100.0, log=True)
    assert (place(0.01), place(0.1), place(1.0)) == pytest.approx((0.0, 50.0, 100.0))
    assert place(5.0) == 100.0  # outside: on the border


def test_the_axis_is_logarithmic_where_losses_span_much() -> None:
    def marks(high: float) -> list[str]:
        points = [(1.0, high), (2.0, 0.1)]
        drawn = line_chart(
            [Series("loss", points)], title="t", about="a", x_label="step", write=lambda v: f"{v:g}"
        )
        return re.findall(r'class="tick end"[^>]*>([^<]+)', drawn)

    assert marks(10.0)[:3] == ["0.1", "0.5", "2"]
    assert marks(0.5)[:2] == ["0.1", "0.2"]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar("a", 0.25, "25 %"), Bar("b", 0.5, "50 %", (0.4, 0.6))]
    tree = ElementTree.fromstring(bars(rows, title="t", about="a", high=1.0))
    short, long = (float(box.attrib["width"]) for box in tree.findall("rect"))
    assert long == pytest.approx(2 * short, abs=0.2)
    assert len(tree.findall("line[@class='whisker']")) == 3


def test_a_heat_map_shades_rows_by_their_own_share() -> None:
    counts = [[1, 0], [0, 100]]
    tree = ElementTree.fromstring(heat_map(["a", "b"], counts, title="t", about="a", rows="r", columns="c"))
    shades = [float(box.attrib["fill-opacity"]) for box in tree.findall("rect")]
    assert shades[0] == shades[3] > 0.9
    assert shades[1] == shades[2] == 0


def test_a_claim_that_is_kept_lies_on_the_line_of_honest_claims() -> None:
    drawn = reliability([(0.5, 0.5, 10)], title="t", about="a", x_label="x", y_label="y")
    dot = ElementTree.fromstring(drawn).find("circle")
    assert dot is not None
    assert float(dot.attrib["cx"]) - 52 == pytest.approx(324 - float(dot.attrib["cy"]))


def test_nothing_to_show_is_an_empty_string() -> None:
    words = {"title": "t", "about": "a", "x_label": "x"}
    assert line_chart([Series("a", [(1.0, math.nan)])], write=str, **words) == ""
    assert histogram([0.0, 1.0], [0.0], **words) == ""
    assert bars([], title="t", about="a") == ""
    assert reliability([], y_label="y", **words) == ""


@pytest.mark.parametrize(
    ("label", "columns", "wanted"),
    [
        ("short", 10, "short"),
        ("balance_not_updated", 11, "balan…dated"),
        ("余额没有更新到账", 9, "余额…到账"),
    ],
)
def test_long_labels_lose_their_middle(label: str, columns: int, wanted: str) -> None:
    assert svg.shortened(label, columns) == wanted
    assert svg.columns_of(svg.shortened(label, columns)) <= columns


def test_text_is_escaped_and_freed_of_what_xml_forbids_or_what_deceives() -> None:
    assert svg.clean("<b>&\x00\u202e\ud800") == "&lt;b&gt;&amp;   "
