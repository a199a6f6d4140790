"""What is kept of rows: found by their tokens, whole or not there, added by many at once."""

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing import files
from penjing.data.shelf import Shelf, keys_of
from penjing.records import Tokens

SIZES = np.array([2, 1, 3])
TOKENS = Tokens(np.array([5, 6, 7, 5, 6, 8], np.int32), np.array([0, 2, 3, 6]))
KEYS = keys_of(TOKENS)
VALUES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def shelf_of(folder: Path, dtype: torch.dtype = torch.float32) -> Shelf:
    return Shelf(folder / "shelf", dtype, pooled=False)


def test_a_row_is_known_by_its_ids_whatever_their_type_and_place() -> None:
    other = Tokens(np.array([7, 5, 6], np.uint16), np.array([0, 1, 3]))
    assert keys_of(other) == [KEYS[1], KEYS[0]]
    assert len({*KEYS}) == 3


def test_segments_and_the_sequences_a_row_is_read_as_make_another_row() -> None:
    read = replace(TOKENS, parts=np.array([[1, 1], [1, 0], [1, 2]]))
    again = replace(TOKENS, parts=np.array([[1, 1], [1, 0], [2, 1]]))
    told = replace(TOKENS, segments=np.array([0, 1, 0, 0, 0, 0], np.uint8))
    assert not {*KEYS} & {*keys_of(read)}
    assert [a == b for a, b in zip(keys_of(read), keys_of(again), strict=True)] == [True, True, False]
    assert not {*KEYS} & {*keys_of(told)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_come_back_bit_for_bit_in_any_order_and_choice(dtype: torch.dtype, tmp_path: Path) -> None:
    values = VALUES.to(dtype)
    shelf_of(tmp_path, dtype).add(KEYS[:2], SIZES[:2], values[:3])
    shelf_of(tmp_path, dtype).add(KEYS[2:], SIZES[2:], values[3:])
    found = shelf_of(tmp_path, dtype).find([KEYS[2], KEYS[0], KEYS[1], KEYS[0]])
    wanted = torch.cat([values[3:], values[:2], values[2:3], values[:2]])
    assert torch.equal(found.of(np.arange(4)), wanted)
    assert torch.equal(found.take(np.array([2, 0])).of(np.array([1])), values[3:])


@pytest.mark.parametrize("damage", ["changed", "cut", "emptied"])
def test_a_damaged_file_is_thrown_away_and_its_rows_are_missing(damage: str, tmp_path: Path) -> None:
    shelf_of(tmp_path).add(KEYS, SIZES, VALUES)
    path = next((tmp_path / "shelf").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"changed": content, "cut": content[:-4], "emptied": b""}[damage])
    assert KEYS[0] not in shelf_of(tmp_path)
    assert not path.exists()


def test_what_a_killed_writer_left_is_no_part_of_the_shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    shelf = shelf_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        patch.setattr(Path, "unlink", killed)  # nothing is tidied up
        with pytest.raises(KeyboardInterrupt):
            shelf.add(KEYS, SIZES, VALUES)
    assert len(list((tmp_path / "shelf").glob(".*.aside"))) == 1
    assert KEYS[0] not in shelf_of(tmp_path)
    with shelf.held(lambda: None):
        shelf.add(KEYS, SIZES, VALUES)
    assert KEYS[0] in shelf_of(tmp_path)
    assert not list((tmp_path / "shelf").glob(".*.aside"))


def _add(folder: Path, which: Sequence[int]) -> None:
    for row in which:
        shelf = shelf_of(folder)
        with shelf.held(lambda: None):
            if KEYS[row] not in shelf:
                first = int(SIZES[:row].sum())
                shelf.add([KEYS[row]], SIZES[row : row + 1], VALUES[first : first + SIZES[row]])


def test_two_processes_add_to_one_shelf_and_nothing_is_kept_twice(tmp_path: Path) -> None:
    forks = multiprocessing.get_context("fork")
    others = [forks.Process(target=_add, args=(tmp_path, order)) for order in ((0, 1, 2), (2, 1, 0))]
    for other in others:
        other.start()
    for other in others:
        other.join(30)
        assert other.exitcode == 0
    assert len(list((tmp_path / "shelf").glob("*.safetensors"))) == 3
    assert torch.equal(shelf_of(tmp_path).find(KEYS).of(np.arange(3)), VALUES)


def test_files_used_longest_ago_make_room_but_for_those_in_use(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for age, path in enumerate(paths):
        path.write_bytes(bytes(10))
        os.utime(path, (age, age))
    files.drop_oldest(paths, 20, {paths[0]})
    assert [path.exists() for path in paths] == [True, False, True]
    files.drop_oldest(paths, 5, {paths[0]})
    assert [path.exists() for path in paths] == [True, False, False]
