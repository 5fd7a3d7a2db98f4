"""What an unquoted word stands for as the value of a setting: text, a number, true or false.

YAML 1.1 reads `0123` as 83, `10:20` as 620 and `yes` as true. In the blocks that this package
reads, an option that is text keeps its word as it is written. A number that is octal or
sexagesimal stays the word as well, and is refused later: `010` is 8 in YAML 1.1, 10 in 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

TAG: Final = "tag:yaml.org,2002:"
TEXT: Final = TAG + "str"
NULL: Final = TAG + "null"
MERGE: Final = TAG + "merge"
#: What a word can be other than text; a text is none of it, and so is no other tag.
WORDS: Final = frozenset(TAG + name for name in ("bool", "int", "float", "timestamp"))

# Nothing wider, `require_password: false` must stay a boolean.
_SECRET: Final = re.compile(r"(?:redis_(?:\w+_)?)?(?:password|passwd|passphrase)")
#: Options of a connection that are text.
_OF_A_CONNECTION: Final = frozenset(
    "redis_" + name
    for name in (
        *("host", "socket", "url", "username", "ca", "certificate", "key", "sentinels", "nodes"),
        *("sentinel_service", "sentinel_username"),
    )
)
#: Options of a store that are text.
_OF_A_STORE: Final = frozenset({"type", "path", "prefix", "connection"})
# Octal, and base 60.
_AMBIGUOUS: Final = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")

#: Where a setting stands: the names from the top on.
Place = tuple[str, ...]


def is_secret(name: object) -> bool:
    """Whether the value of `name` is text, whatever it looks like."""
    return isinstance(name, str) and _SECRET.fullmatch(name) is not None


def stays_text(place: Place, word: str) -> bool:
    """Whether `word`, as the value of the setting at `place`, is read as it is written."""
    name = place[-1]
    if is_secret(name):
        return True
    kind = _kind(place[:-1])
    if kind is None:
        return False
    return name in kind or _AMBIGUOUS.fullmatch(word) is not None


def _kind(block: Place) -> frozenset[str] | None:
    """The options that are text in the block at this place, where it is one of ours."""
    if block[:1] == ("redis_connection",) and len(block) == 1:
        return _OF_A_CONNECTION
    if block[:1] == ("redis_connections",) and len(block) == 2:
        return _OF_A_CONNECTION
    if block[:1] == ("kvs",) and len(block) == 2:
        return _OF_A_STORE
    return None


def keep_text(root: yaml.Node | None) -> None:
    """Make text of the words in a document that stay text."""
    if not isinstance(root, yaml.MappingNode):
        return
    for name, block in _named(root):
        if name == "redis_connection":
            _keep_in(block, (name,))
        elif name == "redis_connections":
            _keep_names(block)
            for each, options in _named(block):
                _keep_in(options, (name, each))
        elif name == "kvs":
            _keep_names(block)
            for item in block.value if isinstance(block, yaml.SequenceNode) else ():
                _keep_names(item)
            for each, options in _entries(block):
                _keep_in(options, (name, each))


def _entries(block: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """The names and options of the stores, in each form that the block can have."""
    yield from _named(block)
    for item in block.value if isinstance(block, yaml.SequenceNode) else ():
        yield from _named(item)
        if isinstance(item, yaml.SequenceNode) and len(item.value) == 2:
            yield "", item.value[1]


def _named(node: yaml.Node, seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, yaml.Node]]:
    """The names in a mapping and their values, and those that `<<` brings in."""
    if id(node) in seen:
        return
    seen |= {id(node)}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.tag == MERGE:
            brought = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for each in brought:
                yield from _named(each, seen)
        elif isinstance(key, yaml.ScalarNode):
            yield key.value, value


def _keep_names(block: yaml.Node) -> None:
    """Make text of the names of stores and connections: `1` is a name as `one` is."""
    keys = [key for key, _ in block.value] if isinstance(block, yaml.MappingNode) else []
    if isinstance(block, yaml.SequenceNode):
        keys = block.value[:1]  # [name, options]
    for key in keys:
        if isinstance(key, yaml.ScalarNode) and key.tag in WORDS and key.style is None:
            key.tag = TEXT


def _keep_in(options: yaml.Node, block: Place) -> None:
    for name, value in _named(options):
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for item in items:
            # A node may be shared with other places, by an anchor: there it is text as well.
            if (
                isinstance(item, yaml.ScalarNode)
                and item.tag in WORDS
                and item.style is None
                and stays_text((*block, name), item.value)
            ):
                item.tag = TEXT


def parse_word(place: Place, text: str) -> Any:
    """What YAML makes of the unquoted word `text` as the value of the setting at `place`.

    A number, a boolean, a date, `None`, or the text itself. Raises `ValueError` where the
    word looks like a number or a date and is none.
    """
    loader: Any = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if tag != NULL and (tag not in WORDS or stays_text(place, text)):
        return text
    return construct(loader, yaml.ScalarNode(tag, text))


def construct(loader: Any, node: yaml.ScalarNode) -> Any:
    """The value of a scalar. Raises `ValueError` where it cannot be what its tag says."""
    try:
        # By the class, as a loader may have a method of its own that calls this one.
        value = yaml.SafeLoader.construct_object(loader, node)
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
        value = None  # 2026-02-31, `!!bool perhaps`, a float of base 60 that is too large
    else:
        if not isinstance(value, int) or value.bit_length() <= _BITS_MAX:
            return value
    raise ValueError("neither a number nor a date")


#: Numbers of more bits cannot be printed: Python has a limit of 4,300 digits.
_BITS_MAX: Final = 4_096
