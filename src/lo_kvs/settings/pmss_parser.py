"""Parses PMSS text with the lexer and the parser of the `pmss` package.

The package's own loader is not used: it prints every rule, including passwords, treats the rest
of a URL as a comment, and prints syntax errors and continues.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from lo_kvs.prestartup import StartupCheck

_COMMENT_OR_MARK = re.compile(r"/\*|//|[:;]")
# What a value holds when the `;` before the next rule is missing.
_NEXT_RULE = re.compile(r"\n\s*\w+\s*:")
QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""", re.DOTALL)


class Refused(Exception):
    """The text is invalid: the reason and the offset. The message never contains the text."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


class Rule(NamedTuple):
    """One `name: value;` and the selectors around it, from the outside in."""

    selectors: tuple[Any, ...]
    name: str
    value: str
    offset: int


def parse_pmss(text: str) -> list[Rule]:
    """The rules in `text`, in order.

    Raises `Refused` if it is not valid PMSS, `StartupCheck` if the `pmss` package is missing.
    """
    lexer_module, parser_module = _import_pmss()
    text = _without_comments(text)
    if not text.strip():
        return []  # the parser rejects an empty file
    tokens = list(_tokens(text, lexer_module.lexer))
    # Rule for rule, the tree has the order of the values in the text.
    offsets = iter([token.lexpos for token in tokens if token.type == "VALUE"])
    # A copy, because the package's parser is shared, as is its lexer below.
    parser = copy.copy(parser_module.parser)
    parser.errorfunc = lambda token: _refuse_token(token, len(text))
    return [
        Rule(selectors, name, value.strip(), next(offsets))
        for selectors, name, value in _walk(parser.parse(lexer=_Replay(tokens)), ())
    ]


def _import_pmss() -> tuple[Any, Any]:
    """The lexer and the parser of pmss. Its import warns and may print: both are silenced."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module("pmss.pmsslex"), importlib.import_module("pmss.pmssyacc")
    except ImportError as error:
        # pmss 0.0.3 imports pkg_resources, which setuptools dropped in 81.
        raise StartupCheck(
            f".pmss files need the package pmss 0.0.3, which cannot be imported ({error}): "
            "pip install 'lo-kvs[pmss]'"
        ) from None


def _without_comments(text: str) -> str:
    """`text` with its comments replaced by blanks, so that offsets and lines stay the same.

    pmss would remove them itself, together with the rest of every URL.
    """
    kept: list[str] = []
    done = 0
    colon = -1  # where the value begins in which we are; -1 between values
    while mark := _COMMENT_OR_MARK.search(text, done):
        start, end = mark.span()
        found = mark.group()
        comment = found.startswith("/")
        if found == ":" and colon < 0:
            colon = start
        elif found == ";":
            colon = -1
        elif found == "/*":
            end = text.find("*/", end) + len("*/")
            if end < len("/*"):  # none: what is left would be looked through for each `/*`
                raise Refused(start, "a comment is not closed by `*/`")
        elif found == "//":
            # `key: scheme://` is a URL, `key:// text` a comment.
            if colon >= 0 and text[start - 1] == ":" and start - 1 != colon:
                comment = False
            else:
                newline = text.find("\n", end)
                end = len(text) if newline < 0 else newline
        kept.append(text[done:start])
        kept.append(re.sub(r"[^\n]", " ", text[start:end]) if comment else found)
        done = end
    return "".join(kept) + text[done:]


class _Replay:
    """Replays the tokens to the parser."""

    def __init__(self, tokens: list[Any]) -> None:
        self._tokens = iter(tokens)

    def token(self) -> Any:
        return next(self._tokens, None)


def _tokens(text: str, shared_lexer: Any) -> Iterator[Any]:
    """The tokens of `text`; each value is checked for a missing `;`."""

    def refuse(token: Any) -> None:
        raise Refused(
            token.lexpos,
            "a character that PMSS does not allow here. Names are letters, digits and `_`, "
            'a condition is `.class` or `[attribute="value"]`, and a value ends at the first `;`, '
            "even in quotes",
        )

    lexer = shared_lexer.clone()
    lexer.lexstateerrorf = {"INITIAL": refuse, "value": refuse}
    lexer.begin("INITIAL")
    lexer.input(text)
    name = ""
    for token in lexer:
        if token.type == "IDENT":
            name = token.value
        elif token.type == "VALUE" and _runs_on(token.value):
            raise Refused(
                token.lexpos,
                f"the value of `{name}` does not end where it should: a `;` is missing, or `//` "
                "in the value began a comment. Put quotes around a value with a single brace in "
                "it, and one with `;` or `//` in it into a .yaml overlay",
            )
        yield token


def _runs_on(value: str) -> bool:
    """Whether the value includes the next rule because a `;` is missing."""
    value = value.strip()
    if value[:1] in {"'", '"'}:
        return QUOTED.fullmatch(value) is None
    depth = 0
    for character in value:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return True
    return depth > 0 or _NEXT_RULE.search(value) is not None


def _refuse_token(token: Any, end: int) -> None:
    if token is None:
        raise Refused(end, "the file ends within a rule: a `;` or `}` is missing")
    raise Refused(
        token.lexpos, "not a rule of the form `selector { name: value; }`: is a `;` missing before?"
    )


def _walk(block: Any, outer: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str, str]]:
    """Every rule of the parser's tree: its selectors from the outside in, name, value."""
    for head, content in block:
        if isinstance(head, str):
            yield outer, head, content
        elif content is not None:
            yield from _walk(content, (*outer, *getattr(head, "selectors", (head,))))
