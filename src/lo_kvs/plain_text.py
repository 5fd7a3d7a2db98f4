"""Makes text safe to print: escapes characters that control a terminal."""

from __future__ import annotations

#: The longest reason that a message quotes.
REASON_CHARS_MAX = 400


def harmless(text: str, keep: str = "") -> str:
    """`text` with every non-printable character escaped as in Python, except those in `keep`.

    Control characters (C0, C1, DEL), line separators and bidirectional marks can change what a
    terminal or a log shows.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


def harmless_json(text: str) -> str:
    """The same for JSON text; the result is JSON of the same value."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\r\t" else _json_escape(char) for char in text
    )


def reason_of(error: BaseException) -> str:
    """The message of an error on one line, escaped and shortened."""
    text = str(error)
    half = REASON_CHARS_MAX // 2
    if len(text) > 2 * REASON_CHARS_MAX:  # before the steps that process the whole text
        text = f"{text[:REASON_CHARS_MAX]} ... {text[-REASON_CHARS_MAX:]}"
    text = harmless(" ".join(text.split()))
    return text if len(text) <= REASON_CHARS_MAX else f"{text[:half]}...{text[-half:]}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
