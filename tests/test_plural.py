"""Numbers agree with what is said of them."""

from penjing.plural import counted


def test_one_is_one_and_the_rest_are_many() -> None:
    assert counted(1, "row") == "1 row"
    assert counted(0, "row") == "0 rows"
    assert counted(1204, "row") == "1,204 rows"
    assert counted(1, "text stands", "texts stand") == "1 text stands"
    assert counted(2, "text stands", "texts stand") == "2 texts stand"
