"""Rows of images: where they may lie, what is refused, and the pixels that come of them."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from common import told
from penjing.data.images import given_images, read_images
from penjing.data.pixels import FEW, Fit, image_tokens, opened, pixels_of
from penjing.errors import DataError, SpecError
from pictures import painted, pixels

pil = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return painted(tmp_path / "shots", 9)


def archived(folder: Path, name: str) -> Path:
    path = folder.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, f"all/{file.relative_to(folder)}")
    else:
        with tarfile.open(path, "w:" + name.rpartition(".")[2]) as packed:
            packed.add(folder, "./all")
    return path


@pytest.mark.parametrize("name", ["", "shots.tar.xz", "shots.zip"])
def test_a_folder_and_archives_of_it_give_the_same_rows(folder: Path, name: str) -> None:
    rows = read_images(str(archived(folder, name) if name else folder))
    wanted, labels = pixels(9)
    by_name = sorted((f"{label}/{i:03}.png", label, i) for i, label in enumerate(labels))
    found = sorted((rows.where(i), rows.labels[i][0], i) for i in range(9))
    assert [one[:2] for one in found] == [one[:2] for one in by_name]
    seen = pixels_of(rows, Fit((20, 20)))
    for (_, _, row), (_, _, i) in zip(found, by_name, strict=True):
        assert np.array_equal(seen[row].transpose(1, 2, 0), wanted[i])


def test_a_zip_of_chinese_windows_has_its_classes_by_their_names(tmp_path: Path) -> None:
    class Unsaid(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # as Explorer writes it: GBK, and no mark
            return self.filename.encode("gbk"), self.flag_bits

    png = io.BytesIO()
    pil.new("RGB", (4, 4)).save(png, "PNG")
    with zipfile.ZipFile(tmp_path / "shots.zip", "w") as archive:
        for i in range(4):
            archive.writestr(Unsaid(f"{('猫咪', '小狗')[i % 2]}/图{i}.png"), png.getvalue())
    rows = read_images(tmp_path / "shots.zip")
    assert sorted(rows.labels) == [("小狗",), ("小狗",), ("猫咪",), ("猫咪",)]
    assert pixels_of(rows, Fit((4, 4))).shape == (4, 3, 4, 4)


def test_a_table_names_paths_beside_itself(folder: Path) -> None:
    lines = [f"{p.relative_to(folder)},{p.parent.name}" for p in sorted(folder.rglob("*.png"))]
    (folder / "list.csv").write_text("file_name,kind\n" + "\n".join(lines) + "\n")
    rows = read_images(folder / "list.csv", label="kind")
    assert len(rows) == 9
    assert rows.where(0) == "list.csv: blue/000.png, line 2"
    assert "paths from column `file_name`, classes from `kind`" in rows.notes[0]
    (folder / "list.csv").write_text("file_name,kind\nno.png,x\n")
    with pytest.raises(DataError) as error:
        read_images(folder / "list.csv", label="kind")
    told(error, "line 2", "'no.png'", "relative to the table's own folder")


def test_a_row_of_a_table_without_a_path_is_left_out_when_asked(folder: Path) -> None:
    (folder / "list.csv").write_text("file_name,kind\nblue/000.png,x\n,y\n")
    with pytest.raises(DataError, match=r"line 3: .*drop_empty"):
        read_images(folder / "list.csv", label="kind")
    rows = read_images(folder / "list.csv", label="kind", drop_empty=True)
    assert (rows.labels, len(rows)) == ([("x",)], 1)
    assert any("1 of 2 rows left out" in note for note in rows.notes)


def test_a_broken_image_is_named_and_left_out_only_when_that_was_asked_for(folder: Path) -> None:
    whole = (folder / "red/002.png").read_bytes()
    (folder / "red/002.png").write_bytes(whole[: len(whole) // 2])
    (folder / "red/905.jpg").write_bytes(b"")
    with pytest.raises(DataError) as error:
        read_images(folder)
    told(error, "red/002.png", "cannot be decoded", "2 of 10 files", "drop_empty: true")
    (folder / "red/002.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"UnidentifiedImageError: cannot identify image file\)"):
        read_images(folder)
    rows = read_images(folder, drop_empty=True)
    assert len(rows) == 8
    assert "2 images of 10 left out" in rows.notes[-1]
    assert "red/905.jpg" in rows.notes[-1]


def test_what_is_no_image_by_name_is_counted(folder: Path) -> None:
    (folder / "red/notes.txt").write_text("x")
    (folder / ".hidden.png").write_bytes(b"x")
    rows = read_images(folder)
    assert len(rows) == 9
    assert "1 file is no image by name" in rows.notes[0]


def test_parts_of_a_data_set_are_asked_about(tmp_path: Path) -> None:
    for part in ("train", "test"):
        painted(tmp_path / "set" / part, 6)
    with pytest.raises(DataError) as error:
        read_images(tmp_path / "set")
    told(error, "holds the parts test, train", "one was wanted", f"{tmp_path}/set/train")
    path = archived(tmp_path / "set", "set.tar.gz")
    with pytest.raises(DataError, match=r"set\.tar\.gz#train"):
        read_images(path)
    rows = read_images(f"{path}#train")
    assert len(rows) == 6
    assert {label for (label,) in rows.labels} == {"blue", "green", "red"}
    with pytest.raises(DataError, match="Did you mean `train`"):
        read_images(f"{path}#trian")


def test_an_image_without_a_class_is_refused_where_classes_are_wanted(folder: Path) -> None:
    os.rename(folder / "red/002.png", folder / "alone.png")
    with pytest.raises(DataError) as error:
        read_images(folder)
    told(error, "alone.png lies in none", "1 of 9", "folder named by its class")
    assert len(read_images(folder, labelled=False)) == 9


@pytest.mark.parametrize(
    ("settings", "said"), [({"delimiter": ";"}, "one class"), ({"text": "x"}, "how a table is read")]
)
def test_a_key_that_would_be_ignored_is_an_error(folder: Path, settings: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_images(folder, **settings)  # type: ignore[arg-type]


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    painted(tmp_path / "shots", 3)
    with pytest.raises(DataError, match="Did you mean `shots`"):
        read_images(tmp_path / "shot")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it holds none"):
        read_images(tmp_path / "empty")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="could not be read to its end"):
        read_images(tmp_path / "bad.zip")


def test_many_images_are_kept_and_not_decoded_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_images(painted(tmp_path / "many", FEW + 4, size=5))
    first = pixels_of(rows, Fit((4, 4)))
    assert isinstance(first, np.memmap)
    monkeypatch.setattr("penjing.data.pixels.opened", lambda content: pytest.fail("decoded again"))
    monkeypatch.setattr("penjing.data.images.opened", lambda content, least: pytest.fail("looked at again"))
    again = pixels_of(read_images(tmp_path / "many"), Fit((4, 4)))
    assert np.array_equal(first, again)
    assert len(list(cache.glob("*.npy"))) == 1


def test_an_image_that_changed_meanwhile_is_no_longer_that_row(folder: Path) -> None:
    rows = read_images(folder)
    pil.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "red/002.png")
    with pytest.raises(DataError, match=r"red/002\.png .* has changed since"):
        pixels_of(rows, Fit((4, 4)))


def encoded(image: object, kind: str = "PNG", **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)  # type: ignore[attr-defined]
    return stream.getvalue()


def test_every_kind_of_image_becomes_the_same_bytes() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    plain = pil.fromarray(grey)
    deep = pil.fromarray(grey.astype(np.uint16) * 257)
    given = [plain.convert(mode) for mode in ("L", "RGB", "RGBA", "LA")] + [deep]
    rows = given_images([encoded(one) for one in given])
    seen = pixels_of(rows, Fit((8, 8)))
    for one in seen:
        assert np.array_equal(one, np.broadcast_to(grey, (3, 8, 8)))
    assert pixels_of(rows, Fit((8, 8), channels=1)).shape == (5, 1, 8, 8)


def test_an_image_stands_as_its_camera_says() -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, :4] = 255
    exif = pil.Exif()
    exif[274] = 6  # to be turned clockwise
    image = opened(encoded(pil.fromarray(wide), exif=exif))
    assert image.size == (4, 8)
    assert np.asarray(image)[0].min() == 255


def test_the_middle_is_cut_out_where_the_processor_says_so() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    rows = given_images([pil.fromarray(image)])
    assert pixels_of(rows, Fit((10, 10), edge=10)).min() == 200
    assert pixels_of(rows, Fit((10, 10))).min() == 0


def test_an_image_of_a_billion_pixels_is_broken_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="decompression bomb"):
        given_images([encoded(pil.fromarray(np.zeros((9, 9, 3), np.uint8)))])


def test_places_of_images_take_no_memory() -> None:
    tokens = image_tokens(1000, 17)
    assert tokens.ids.strides == (0,)
    assert tokens.take(np.array([3, 5])).lengths.tolist() == [17, 17]


def test_rows_are_told_apart_by_content(folder: Path) -> None:
    rows = read_images(folder)
    (folder / "blue/copy.png").write_bytes((folder / "red/002.png").read_bytes())
    more = read_images(folder)
    assert len(set(rows.texts)) == 9
    assert len(set(more.texts)) == 9


@pytest.mark.data
@pytest.mark.slow
def test_a_part_of_a_real_archive_is_read_and_kept(shared_data: Path) -> None:
    rows = read_images(f"{shared_data}/cifar10_images/cifar10_images.tar.xz#test")
    assert len(rows) == 10_000
    assert len({label for (label,) in rows.labels}) == 10
    seen = pixels_of(rows, Fit((32, 32)))
    assert seen.shape == (10_000, 3, 32, 32)
    assert seen.mean((0, 2, 3)) / 255 == pytest.approx(
        [0.494, 0.485, 0.450], abs=0.005
    )  # as published of CIFAR-10
