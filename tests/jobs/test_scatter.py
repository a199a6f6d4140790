"""The Pareto front and its picture."""

import random
from xml.etree import ElementTree

from penjing.jobs.scatter import Spot, agreement, front, scatter


def test_the_front_is_what_no_other_spot_beats() -> None:
    chance = random.Random(0)
    spots = [Spot(chance.randint(1, 9), chance.randint(1, 9) / 10, str(i)) for i in range(60)]
    beaten = [
        s
        for s in spots
        if any(
            o.price <= s.price and o.quality >= s.quality and (o.price, o.quality) != (s.price, s.quality)
            for o in spots
        )
    ]
    wanted = {(s.price, s.quality) for s in spots if s not in beaten}
    found = front(spots)
    assert [(s.price, s.quality) for s in found] == sorted(wanted)


def test_every_spot_is_drawn_and_told() -> None:
    spots = [
        Spot(1e3, 0.5, "a <b>"),
        Spot(1e6, 0.9, "c"),
        Spot(0, 0.1, "free"),
        Spot(float("nan"), 0.1, "none"),
    ]
    drawn = scatter(spots, title="t", about="d", x_label="x", x_write=lambda v: f"{v:g}")
    tree = ElementTree.fromstring(drawn)
    circles = [e for e in tree.iter() if e.tag.endswith("circle")]
    assert [c[0].text for c in circles] == ["a <b>", "c"]
    assert float(circles[0].attrib["cx"]) < float(circles[1].attrib["cx"])
    assert float(circles[0].attrib["cy"]) > float(circles[1].attrib["cy"])
    assert scatter([], title="t", about="d", x_label="x", x_write=str) == ""


def test_rows_stand_at_their_truth_and_prediction() -> None:
    drawn = agreement(
        [(0.0, 1.0), (5.0, 4.0)], title="t", about="d", x_label="x", y_label="y", write=lambda v: f"{v:g}"
    )
    tree = ElementTree.fromstring(drawn)
    low, high = (e for e in tree.iter() if e.tag.endswith("circle"))
    assert (low[0].text, high[0].text) == ("0 → 1", "5 → 4")
    assert float(low.attrib["cx"]) < float(high.attrib["cx"])
    assert float(low.attrib["cy"]) > float(high.attrib["cy"])
    assert agreement([], title="t", about="d", x_label="x", y_label="y", write=str) == ""
