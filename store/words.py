"""The words by which items are found: those of their titles and ids, folded.

Case and accents do not count, and neither do letters that are drawn with a stroke. Scripts that
leave no spaces between words (Han, kana) are taken letter by letter.
"""

from __future__ import annotations

import re
import unicodedata

import msgspec
from msgspec import Struct

__all__ = ["MOST_WORDS", "Entry", "entry_of", "entry_words", "folded", "words_of"]

MOST_WORDS = 24
"""Different words of one item, at most; what comes behind them does not find it."""
_LONGEST = 24
"""Characters of a word that count."""
_DRAWN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe"})
_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W_])+")


class Entry(Struct, frozen=True):
    """What the search tells of a catalogue entry."""

    item_id: str
    title: str = ""
    available: bool = True


_decoder = msgspec.json.Decoder(Entry)


def folded(text: str) -> str:
    """Without case, accents and other marks: `Café` and `CAFE` are one."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    if not plain.isascii():
        plain = "".join([c for c in plain if not unicodedata.category(c).startswith("M")])
    return plain.casefold().translate(_DRAWN)


def words_of(text: str) -> list[str]:
    """The different words of a text, folded, in order, none longer than is compared."""
    found = dict.fromkeys(word[:_LONGEST] for word in _WORD.findall(folded(text)))
    return list(found)[:MOST_WORDS]


def entry_of(value: bytes | None) -> Entry | None:
    """A catalogue entry (JSON); None for none, and for what is not one."""
    if value is None:
        return None
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def entry_words(value: bytes | None) -> set[str]:
    """The words of a catalogue entry (JSON): its id's, and its title's."""
    entry = entry_of(value)
    return set() if entry is None else set(words_of(f"{entry.item_id} {entry.title}"))
