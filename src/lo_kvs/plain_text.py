"""Text for people: what would make a terminal do things is shown as an escape."""

from __future__ import annotations

#: The longest reason that a message quotes.
REASON_CHARS_MAX = 400


def harmless(text: str, keep: str = "") -> str:
    """`text` with every character that does not print, except those in `keep`, escaped.

    Control characters (C0, C1, DEL), line separators and the marks that reverse text can
    rewrite what a terminal or a log shows. Such a character
    becomes its Python escape.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def harmless_json(text: str) -> str:
    """The same for JSON text, which stays JSON text of the same value."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\r\t" else _json_escape(char) for char in text
    )


def reason_of(error: BaseException) -> str:
    """What an error says, on one line, harmless, and not too long."""
    text = str(error)
    half = REASON_CHARS_MAX // 2
    if len(text) > 2 * REASON_CHARS_MAX:  # before the other steps, which look at all of it
        text = f"{text[:REASON_CHARS_MAX]} ... {text[-REASON_CHARS_MAX:]}"
    text = harmless(" ".join(text.split()))
    return text if len(text) <= REASON_CHARS_MAX else f"{text[:half]}...{text[-half:]}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
