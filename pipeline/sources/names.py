"""Names of files and classes: which are litter or no photos, and which look alike."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

# What may be taken off the name of an image; `22.05` has no extension.
PHOTO_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp"),
        *(".tif", ".tiff", ".heic", ".heif", ".avif"),
    }
)
# Files that no one means to be photos. Others are read: the content decides.
_NO_PHOTO_EXTENSIONS = (
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".html", ".htm"),
    *(".db", ".ini", ".log", ".yaml", ".yml", ".pdf", ".py", ".ipynb", ".xmp", ".aae"),
    *(".mp4", ".mov", ".avi"),
)
# Of operating systems, network storage and tools; and every name with a dot first.
_LITTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "found.000"),
        *("system volume information", "__macosx", "icon\r", "lost+found", "lost.dir"),
        *("network trash folder", "temporary items", "@eadir", "@tmp", "#recycle"),
        *("#snapshot", "@recycle", "@recently-snapshot", "__pycache__"),
    }
)
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2060\ufeff]")
_BYTE = re.compile(r"\\udc([89a-f][0-9a-f])")  # that is not UTF-8, in a repr
_ACCENT = re.compile("[\u0300-\u036f]")
_NUMBER = re.compile(r"0*(\d+?)(?:\.0*)?")


def is_litter(name: str) -> bool:
    """Returns whether a file or folder is left by an operating system or a tool."""
    return name.startswith(".") or name.lower() in _LITTER


def is_no_photo(name: str) -> bool:
    """Returns whether the extension says that a file is no photo."""
    return name.lower().endswith(_NO_PHOTO_EXTENSIONS)


def has_photo_extension(path: str) -> bool:
    """Returns whether the extension is an image's."""
    return PurePosixPath(path).suffix.lower() in PHOTO_EXTENSIONS


def stem(path: str) -> str:
    """Returns the name of an image without its folders and an image's extension.

    >>> [stem(path) for path in ("a/0001.jpg", "b.c.PNG", "22.05")]
    ['0001', 'b.c', '22.05']
    """
    pure = PurePosixPath(path)
    return pure.stem if has_photo_extension(path) else pure.name


def without_extension(path: str) -> str:
    """Returns a path without an image's extension."""
    return path[: path.rindex(".")] if has_photo_extension(path) else path


def is_utf8(name: str) -> bool:
    """Returns whether a path is text, and can be an id."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Returns a path as UTF-8 text; bytes that are not UTF-8 as escapes."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def shown(name: str) -> str:
    """Returns a name in quotes, with escapes where letters do not tell all.

    >>> print(shown("caf\\u00e9"), shown("cafe\\u0301"), shown(" a\\xa0b"))
    'café' 'cafe\\u0301' ' a\\xa0b'
    """
    quoted = _BYTE.sub(r"\\x\1", repr(name))
    return "".join(
        letter
        if unicodedata.category(letter)[0] not in "MCZ" or letter == " "
        else letter.encode("unicode-escape").decode()
        for letter in quoted
    )


def spelling(name: str) -> str:
    """Returns what a name looks like: NFC, blanks trimmed and made one."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
    return " ".join(name.split())


def key(name: str) -> str:
    """Returns what names have in common that a person may take for one.

    >>> [key(name) for name in ("Hat ", "cafe\\u0301", "12.0", "012")]
    ['hat', 'café', '12', '12']
    """
    folded = spelling(spelling(name).casefold())
    number = _NUMBER.fullmatch(folded)
    return number[1] if number else folded


def letters(name: str) -> str:
    """Returns a name without blanks, punctuation and accents; of a number its `key`.

    >>> [letters(name) for name in ("T-Shirt", "t shirt", "Caf\u00e9", "12.0", "1-2")]
    ['tshirt', 'tshirt', 'cafe', '12', '1-2']
    """
    folded = key(name)
    if not any(map(str.isalpha, folded)):
        return folded
    # Marks of other scripts are vowels: words differ by them.
    plain = _ACCENT.sub("", unicodedata.normalize("NFKD", folded))
    return "".join(x for x in plain if unicodedata.category(x)[0] in "LNM")


def alike(names: Iterable[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Finds names that a person may take for one.

    Returns:
        Those that look the same, and those that differ in case, or as `12` and `12.0`
        do; each a list of sorted names.
    """
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        by_key[key(name)].append(name)
    same: list[list[str]] = []
    near: list[list[str]] = []
    for group in by_key.values():
        if len(group) > 1:
            twins = len({spelling(name) for name in group}) < len(group)
            (same if twins else near).append(group)
    return same, near
