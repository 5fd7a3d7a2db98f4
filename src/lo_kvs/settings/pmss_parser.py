"""PMSS text, taken apart by the lexer and the parser of the `pmss` package.

Its own loader is not used: it prints every rule, passwords included, takes the rest of a
URL for a comment, and where the text is wrong it prints that and carries on.
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
    """What is wrong in the text, and at which offset. The text itself is never told."""

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
    """The rules in `text`, in its order.

    Raises `Refused` where it is no PMSS, `StartupCheck` where the `pmss` package is missing.
    """
    lexer_module, parser_module = _import_pmss()
    text = _without_comments(text)
    if not text.strip():
        return []  # the parser takes an empty file for a broken one
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
    """`text` with blanks for its comments: offsets and lines stay what they were.

    pmss would take them out itself, and the rest of every URL with them.
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
                raise Refused(start, "a comment that no `*/` ends")
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
    """The tokens once more, in the form in which the parser asks for them."""

    def __init__(self, tokens: list[Any]) -> None:
        self._tokens = iter(tokens)

    def token(self) -> Any:
        return next(self._tokens, None)


def _tokens(text: str, shared_lexer: Any) -> Iterator[Any]:
    """The tokens of `text`, each value looked at for a `;` that was forgotten."""

    def refuse(token: Any) -> None:
        raise Refused(
            token.lexpos,
            "a character that PMSS has no use for here. Names are letters, digits and `_`, "
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
    """Whether the value swallowed what follows it, for want of a `;`."""
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
