"""Pictures and archives from anywhere: right pixels, or one line that names the file; never without bounds."""

import gzip
import io
import resource
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from torchplastic.data import files
from torchplastic.data.classes import read_drawing, read_folder
from torchplastic.data.pictures import read_folder as read_pictures

MIB = 1 << 20


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def refusal(read):
    """The one error that reading may raise, as text; None if it raises none."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return None


def gradient():
    """8-bit gray from 0 to 255, `[8, 16]`."""
    return np.linspace(0, 255, 128).round().astype(np.uint8).reshape(8, 16)


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (lambda g: Image.fromarray(g.astype(np.uint16) * 257), "PNG"),
        (lambda g: Image.fromarray(g.astype(np.uint16) * 257), "TIFF"),
        (lambda g: Image.fromarray(g.astype(np.int32) * 257), "TIFF"),
        (lambda g: Image.fromarray((g / 255).astype(np.float32)), "TIFF"),
        (lambda g: Image.fromarray(g).convert("RGB"), "PNG"),
        (lambda g: Image.fromarray(g).convert("RGB"), "BMP"),
        (lambda g: Image.fromarray(g).convert("RGBA"), "WEBP"),
        (lambda g: Image.fromarray(g).convert("LA"), "PNG"),
        (lambda g: Image.fromarray(g).convert("P"), "GIF"),
        (lambda g: Image.fromarray(g).convert("CMYK"), "TIFF"),
        (lambda g: Image.fromarray(g), "PPM"),
    ],
)
def test_every_mode_is_its_8_bit_twin(picture, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(picture(gradient()), kind, **options)
    found = files.gray(content)
    assert np.abs(found.astype(int) - gradient()).max() <= 1
    assert np.abs(np.asarray(files.rgb(content)).astype(int) - gradient()[..., None]).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "I;16"])
def test_what_is_transparent_is_white(mode):
    square = np.zeros((9, 9), np.uint8)
    square[3:6, 3:6] = 255
    if mode == "RGBA":
        content = encoded(Image.merge("RGBA", [Image.new("L", (9, 9))] * 3 + [Image.fromarray(square)]), "PNG")
    elif mode == "LA":
        content = encoded(Image.merge("LA", [Image.new("L", (9, 9)), Image.fromarray(square)]), "PNG")
    else:  # one value stands for transparent
        ink = Image.fromarray(np.where(square > 0, 0, 200).astype(np.uint8))
        if mode == "I;16":
            ink, clear = Image.fromarray(np.asarray(ink).astype(np.uint16) * 257), 200 * 257
        else:
            ink = ink.convert(mode)
            clear = (200, 200, 200) if mode == "RGB" else 200
        content = encoded(ink, "PNG", transparency=clear)
    gray = files.gray(content)
    assert (gray[square > 0] == 0).all()
    assert (gray[square == 0] == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_turned_pictures_are_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    content = encoded(Image.fromarray(gradient()).convert("RGB"), kind, exif=exif)
    assert files.gray(content).shape == (16, 8)


def test_both_folders_read_the_same_kinds(tmp_path):
    """Faults of use: 16-bit gray came out blank, a transparent PNG black, floats black."""
    ink = np.full((21, 21), 255, np.uint8)
    ink[5:16, 9:12] = 48
    clear = Image.fromarray(np.where(ink == 255, 0, 255).astype(np.uint8))
    Image.fromarray(ink).save(tmp_path / "a.png")
    Image.fromarray(ink.astype(np.uint16) * 257).save(tmp_path / "b.png")
    Image.fromarray((ink / 255).astype(np.float32)).save(tmp_path / "c.tif")
    Image.merge("RGBA", [Image.fromarray(np.full_like(ink, 48))] * 3 + [clear]).save(tmp_path / "d.png")
    plain, *others = (read_drawing(tmp_path / name) for name in ("a.png", "b.png", "c.tif", "d.png"))
    assert plain.max() == 207
    for name in ("e", "f"):
        Image.fromarray(ink).save(tmp_path / f"{name}.png")
    sums = read_pictures(tmp_path, 21)
    together = [*sums.train, *sums.validation]
    for other in others:
        assert (other.int() - plain.int()).abs().max() <= 1
    for picture in together:
        assert (picture - together[0]).abs().max() <= 3


def test_what_a_system_leaves_behind_is_no_data(tmp_path):
    ink = np.full((21, 21), 255, np.uint8)
    ink[5:16, 9:12] = 0
    data = ["one/a.png", "one/b.PNG", "two/c.jpg"]
    left = [
        ".ipynb_checkpoints/a.png", "one/.a.png", "one/._a.png", "@eaDir/a.png", "two/@eaDir/x/c.jpg",
        "__MACOSX/one/a.png", "two/Thumbs.db", "one/notes.txt", "$RECYCLE.BIN/a.png",
    ]  # fmt: skip
    for name in (*data, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ink).save(tmp_path / name, "JPEG" if name.endswith("jpg") else "PNG")
    assert read_folder(tmp_path, 31).names == ("one", "two")
    assert [path.relative_to(tmp_path).as_posix() for path in files.pictures_below(tmp_path)] == data
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in (*data, *left):
            archive.writestr(name, b"")
    assert [name for name, _ in files.zip_members(tmp_path / "all.zip", ".png")] == data[:2]


def test_a_blank_drawing_is_refused(tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "blank.png")
    with pytest.raises(ValueError, match=r"blank\.png is blank: all of its pixels are 255"):
        read_drawing(tmp_path / "blank.png")


@given(st.binary(max_size=300), st.sampled_from(["", "PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]), st.data())
def test_damaged_pictures_are_one_line(noise, kind, data):
    content = noise
    if kind:
        content = bytearray(encoded(Image.fromarray(gradient()).convert("RGB"), kind))
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        content = bytes(content[: data.draw(st.integers(0, len(content)))])
    said = refusal(lambda: files.rgb(content, "x.png"))
    assert said is None or (said.startswith("x.png is ") and "\n" not in said)


def test_another_program_is_never_started(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg is no readable picture: it is none of PNG"):
        files.rgb(tmp_path / "a.jpg")


# --- bounds


@pytest.fixture
def little_memory():
    """Allow this process 300 MiB more than it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 300 * MIB, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_strip_is_not_padded_without_bound(tmp_path, little_memory):
    strip = Image.new("1", (65535, 1), 1)
    strip.putpixel((7, 0), 0)
    strip.save(tmp_path / "strip.png")
    with pytest.raises(ValueError, match=r"strip\.png is too long to be padded to a square: 65,535 × 1 pixels"):
        read_drawing(tmp_path / "strip.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_picture_in_a_small_file(tmp_path, little_memory):
    header = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = (12_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match="x is too large: 12,000 × 12,000 pixels; at most 67,108,864"):
        files.rgb(bytes(header), "x")


def test_members_that_unpack_to_gigabytes(tmp_path, little_memory):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/b/c.png", "w") as file:
        for _ in range(64):
            file.write(bytes(MIB))
    with pytest.raises(ValueError, match=r"a/b/c\.png in .*bomb\.zip is too large: more than 1,048,576 bytes"):
        list(files.zip_members(bomb, ".png", MIB))
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"x")
    with pytest.raises(ValueError, match=r"lzma\.zip cannot be read.*a\.png is neither stored nor deflated"):
        list(files.zip_members(tmp_path / "lzma.zip", ".png"))


def tar_header(name, size, kind=tarfile.REGTYPE):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("packed", [True, False])
def test_a_tar_that_asks_for_gigabytes(kind, packed, tmp_path, little_memory):
    content = tar_header("data_batch_1.bin", 1 << 40, kind) + bytes(512 * 20)
    (tmp_path / "a.tar").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=r"a\.tar (cannot be read.*it asks for|is too large)|too large"):
        list(files.tar_members(tmp_path / "a.tar", lambda name: True, 64 * MIB))


def test_a_sparse_member_counts_what_it_unpacks_to(tmp_path, little_memory):
    path = tmp_path / "sparse.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("data_batch_1.bin")
        member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40),
                              "GNU.sparse.map": "0,0"}  # fmt: skip
        archive.addfile(member)
    with pytest.raises(ValueError, match=r"data_batch_1\.bin in .* is too large: 1,099,511,627,776 bytes"):
        list(files.tar_members(path, lambda name: True, 64 * MIB))


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_damaged_archives_are_one_line(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for n in range(4):
                archive.writestr(f"a/b/{n}.png", bytes(range(200)))
    else:
        with tarfile.open(path, "w:gz") as archive:
            for n in range(4):
                member = tarfile.TarInfo(f"{n}.bin")
                member.size = 200
                archive.addfile(member, io.BytesIO(bytes(range(200))))
    whole, stream = path.read_bytes(), np.random.default_rng(0)
    read = {"zip": lambda: files.zip_members(path, ".png"), "tar": lambda: files.tar_members(path, lambda name: True)}
    refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for place in stream.integers(0, len(content), stream.integers(1, 4)):
            content[place] ^= int(stream.integers(1, 256))
        path.write_bytes(content)
        said = refusal(lambda: list(read[ending]()))
        refused += said is not None
        assert said is None or (str(path) in said and "\n" not in said)
    assert refused > 100


def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / b"\xff.png".decode(errors="surrogateescape")
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is no readable picture") as caught:
        files.rgb(path)
    str(caught.value).encode()
