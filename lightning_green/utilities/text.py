"""Text from outside, such as the answer of a service or a record of another process, for a terminal."""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that move the cursor, change colors, reverse the direction of text, or cannot be encoded."""


def printable(text: str) -> str:
    r"""Return a text with each control character replaced by ``?``; line feeds and tabs are kept.

    A terminal obeys control characters: they can hide a line, change its title or write to the clipboard.

    Examples:
        >>> printable("done\x1b[2K\r\u202eexe.txt")
        'done?[2K??exe.txt'

    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in _KEPT or unicodedata.category(character) not in _HIDDEN else "?" for character in text
    )
