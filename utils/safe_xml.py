"""Reading XML from strangers: no DTD, no entities, no network, at most 1 MB, and the encoding it really has."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from pathlib import Path

from lxml import etree

from utils.errors import DataError
from utils.inputs import open_regular

MAX_XML_BYTES = 1_000_000

_PARSER = etree.XMLParser(
    resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
)
_DECLARATION = re.compile(r"\s*<\?xml\b([^>]*)\?>")
_ENCODING = re.compile(r"""\bencoding\s*=\s*["']([^"']*)["']""")
_DOCTYPES = tuple("<!DOCTYPE".encode(codec) for codec in ("ascii", "utf-16-le", "utf-16-be"))
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# GB18030 holds both older sets; files that say GB2312 often use characters of GBK.
_CHINESE = frozenset({"gb2312", "gbk", "gb18030", "gb_2312-80", "cp936", "ms936", "euc-cn", "x-gbk"})


def read_xml_root(path: str | Path, warn: Callable[[str, str], None] | None = None) -> etree._Element:
    """The root element of a file. ``warn(kind, message)`` hears of an encoding that had to be guessed.

    DataError when it is missing, a link, over 1 MB, empty, not well-formed, has a DOCTYPE, or contradicts its encoding.
    """
    name = os.fspath(path)
    file, size = open_regular(name, "annotation", follow_links=False)
    with file:
        if size > MAX_XML_BYTES:
            raise DataError(f"{name}: {size} bytes: over 1 MB, not a VOC annotation")
        data = file.read(size)
    if not data.strip():
        raise DataError(f"{name}: is empty: export it again, or delete it and its image")
    if any(doctype in data for doctype in _DOCTYPES):
        raise DataError(f"{name}: has a DOCTYPE: refused, VOC annotations need none; delete that line")
    root = _parse(_as_utf8(data, name), name, warn)
    if root.getroottree().docinfo.internalDTD is not None:
        raise DataError(f"{name}: has a DOCTYPE: refused, VOC annotations need none; delete that line")
    return root


def _parse(data: bytes, name: str, warn: Callable[[str, str], None] | None) -> etree._Element:
    try:
        return etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as error:
        text = _undeclared_chinese(data)
        if text is not None:
            if warn:
                warn("encoding guessed", f"{name}: names no encoding and is not UTF-8: read as GBK")
            return _parse(text.encode(), name, None)
        what = str(error.msg or "no element found")
        if "encoding" in what:
            raise DataError(f"{name}: its bytes contradict its encoding ({what}): save it as UTF-8") from error
        raise DataError(f"{name}: not well-formed XML: {what}: export it again") from error


def _declared_encoding(start: str) -> str:
    """In lower case; empty when the XML names none."""
    declaration = _DECLARATION.match(start)
    encoding = _ENCODING.search(declaration[1]) if declaration else None
    return encoding[1].lower() if encoding else ""


def _undeclared_chinese(data: bytes) -> str | None:
    if _declared_encoding(data[:400].decode("latin-1")):
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return data.decode("gb18030")
        except UnicodeDecodeError:
            return None
    return None


def _is_chinese_in_utf8(data: bytes) -> bool:
    try:
        # Characters of three bytes and more; those of two are as good a reading as one Chinese character.
        return max(data.decode("utf-8")) >= "\u0800"
    except UnicodeDecodeError:
        return False


def _as_utf8(data: bytes, name: str) -> bytes:
    """Bytes that the parser reads correctly: unchanged unless they are UTF-16, Chinese, or start with a BOM."""
    bom, codec = next(((bom, codec) for bom, codec in _BOMS if data.startswith(bom)), (b"", ""))
    if not codec and data[:2] in (b"<\0", b"\0<"):
        codec = "utf-16-le" if data[0] else "utf-16-be"
    declared = _declared_encoding(data[len(bom) : 400].decode(codec or "latin-1", "replace"))
    wide = codec.startswith("utf-16")
    if declared and (declared.startswith("utf-16") != wide or (codec == "utf-8" and declared not in ("utf-8", "utf8"))):
        raise DataError(f"{name}: encoding {declared!r}: its bytes contradict it: save it as UTF-8")
    if declared in _CHINESE:
        codec = "gb18030"
    if not codec:
        return data
    try:
        text = data[len(bom) :].decode(codec)
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: encoding {declared or codec!r}: its bytes contradict it: save it as UTF-8") from error
    # GB18030 gives nearly any bytes a meaning; those of Chinese in it hardly ever are UTF-8 of such characters, too.
    if codec == "gb18030" and _is_chinese_in_utf8(data):
        raise DataError(f"{name}: encoding {declared!r}: its bytes contradict it: save it as UTF-8")
    return _DECLARATION.sub("", text, count=1).encode()
