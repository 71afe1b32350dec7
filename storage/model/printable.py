"""Text from outside, made fit to be shown: on a terminal it must say what it says and do nothing.

A name, an event's data or a peer's words may hold an escape sequence that clears the screen or types for
the user, a bidi override that turns a line around (CVE-2021-42574), a zero-width character that makes two
names look the same, half a surrogate pair that no terminal can be sent. Whatever Unicode does not call
printable (C0, C1, DEL, format characters, surrogates, line separators, spaces other than the common one) is
escaped as JSON escapes it, so that shown JSON is still the same JSON.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """`text` on one line, with everything escaped that is not printable."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else _SHORT.get(c) or _escaped(ord(c)) for c in text])


def printable_lines(text: str) -> str:
    """The same for text of several lines: its newlines stay."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000  # as a surrogate pair (RFC 8259 §7)
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
