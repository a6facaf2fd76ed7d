"""What a file is, by its first bytes and its ending: the picture formats that are read, and the others by name."""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from pathlib import PurePath
from typing import NamedTuple

from PIL import features

HEAD = 512
"""Bytes that tell what a file is."""

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("ppm", "pgm", "pbm", "pnm", "avif", "jp2", "j2k", "jpx"),
    )
)
"""Endings of the formats that Pillow reads."""

_CONVERT = "convert it to PNG or JPEG"


class Kind(NamedTuple):
    """Files that Pillow does not read, or not as what they show."""

    name: str
    how: str
    """What the user can do."""
    endings: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name}; {self.how}"


def _kind(name: str, how: str = _CONVERT, *, endings: str = "") -> Kind:
    return Kind(name, how, frozenset(f".{ending}" for ending in endings.split()))


HEIC = _kind(
    "HEIC, which needs a decoder", f"`pip install pillow-heif`, or {_CONVERT}", endings="heic heif hif heics heifs"
)
AVIF = _kind("AVIF, which needs a decoder", f"install a Pillow that has it, or {_CONVERT}", endings="avifs")
JXL = _kind("JPEG XL, which needs a decoder", f"`pip install pillow-jxl-plugin`, or {_CONVERT}", endings="jxl")
RAW = _kind(
    "a camera's raw file, which is not read (it holds a small preview only)",
    "develop it to PNG, TIFF or JPEG",
    endings="3fr arw cr2 cr3 crw dcr dng erf kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f",
)
PHOTOSHOP = _kind("a Photoshop file, which is not read", "export it as PNG", endings="psd psb")
SVG = _kind("SVG, a drawing without pixels", "export it as PNG", endings="svg svgz")
PDF = _kind("PDF, a document", "export its pages as PNG", endings="pdf")
POSTSCRIPT = _kind("PostScript, a document", "export it as PNG", endings="eps")
DICOM = _kind(
    "DICOM, which is not read", "write its pixels as PNG of 8 bits, with a window of your choice", endings="dcm dicom"
)
EXR = _kind(
    "OpenEXR, which is not read", "write its pixels as PNG of 8 bits, with an exposure of your choice", endings="exr"
)
FITS = _kind(
    "FITS, which is not read", "write its pixels as PNG of 8 bits, with a range of your choice", endings="fits"
)
OTHER = _kind("of a format that is not read", endings="tga ico xcf dds pcx jxr wdp bpg qoi")

UNREAD = {
    e: k for k in (HEIC, AVIF, JXL, RAW, PHOTOSHOP, SVG, PDF, POSTSCRIPT, DICOM, EXR, FITS, OTHER) for e in k.endings
}
"""Kind by ending: pictures (and documents that show such) that must not be passed over as something else."""

_LFS = _kind("a Git LFS pointer, not the picture itself", "fetch it with `git lfs pull`")
_HTML = _kind("an HTML page, as a failed download leaves it", "download the picture again")
_XML = _kind("an XML text, as a failed download leaves it", "download the picture again")
_ZIP = _kind("a ZIP archive", "unpack it")
_GZIP = _kind("gzip data", "unpack it")
_VIDEO = _kind("a video", "write its frames as pictures")
_EMPTY = _kind("an empty file", "copy or download it again")
_ZEROS = _kind("a file that begins with nothing but zeros", "copy or download it again")

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (rb"version https://git-lfs", _LFS),
    (rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", _HTML),
    (rb"(?is)(\xef\xbb\xbf)?\s*(<\?xml.*?)?(<!--.*?-->\s*)*(<!doctype svg.*?)?<svg", SVG),
    (rb"\s*<\?xml", _XML),
    (rb".{4}ftyp(heic|heix|hevc|hevx|heim|heis|hevm|hevs|mif1|msf1)", HEIC),
    (rb".{4}ftyp(avif|avis)", AVIF),
    (rb".{4}ftypcrx", RAW),
    (rb".{4}ftyp", _VIDEO),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", JXL),
    (rb"8BPS", PHOTOSHOP),
    (rb"%PDF", PDF),
    (rb"%!PS|\xc5\xd0\xd3\xc6", POSTSCRIPT),
    (rb".{128}DICM", DICOM),
    (rb"v/1\x01|#\?RADIANCE", EXR),
    (rb"SIMPLE  =", FITS),
    (rb"FUJIFILMCCD-RAW|II\*\0.{4}CR|IIU\0|IIRO|MMOR", RAW),
    (rb"gimp xcf|DDS |qoif|BPG\xfb", OTHER),
    (rb"PK\x03\x04", _ZIP),
    (rb"\x1f\x8b", _GZIP),
    (rb"\Z", _EMPTY),
    (rb"\0+\Z", _ZEROS),
)

_READ: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"RIFF.{4}WEBP", "WebP"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"BM.{4}\0\0\0\0", "BMP"),
    (rb"P[1-6]\s", "PPM"),
)


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read: its own, and those of pillow-heif and pillow-jxl-plugin if there."""
    found = ["PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM"]
    found += ["AVIF"] if features.check("avif") else []
    found += ["JPEG2000"] if features.check("jpg_2000") else []
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found.append("HEIF")
    if importlib.util.find_spec("pillow_jxl"):
        importlib.import_module("pillow_jxl")
        found.append("JXL")
    return tuple(found)


def shown_by(head: bytes) -> bool:
    """Whether a file that begins like this is a picture, whatever its ending says."""
    return _format(head) not in (None, "BMP", "PPM") or _kind_of(head) in (HEIC, AVIF, JXL, PHOTOSHOP, RAW)


def refused(name: object) -> Kind | None:
    """The kind of a file that Pillow would open by its preview only; None for others."""
    return RAW if PurePath(str(name)).suffix.lower() in RAW.endings else None


def reason(name: object, head: bytes) -> str:
    """Why a file that Pillow does not know is not read; `head`: its first `HEAD` bytes."""
    if kind := _kind_of(head):
        return str(kind)
    if known := _format(head):
        return f"it begins as a {known} file, but is cut off, damaged or of a kind that Pillow does not read"
    kind = UNREAD.get(PurePath(str(name)).suffix.lower())
    return str(kind) if kind else "not a picture of a known format"


def _kind_of(head: bytes) -> Kind | None:
    return next((kind for magic, kind in _MAGIC if re.compile(magic, re.DOTALL).match(head)), None)


def _format(head: bytes) -> str | None:
    return next((name for magic, name in _READ if re.compile(magic, re.DOTALL).match(head)), None)
