"""Decides what an unquoted word in the settings means: text, a number or a boolean.

YAML 1.1 reads `0123` as 83, `10:20` as 620 and `yes` as true. A text option of a connection or
a store keeps its word unchanged. An octal or base-60 number there stays text as well, and is
rejected later: `010` is 8 in YAML 1.1, 10 in 1.2.
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
#: The types of a word other than text.
WORDS: Final = frozenset(TAG + name for name in ("bool", "int", "float", "timestamp"))

# Not broader: `require_password: false` must stay a boolean.
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

#: The path of a setting: the names from the top.
Place = tuple[str, ...]


def is_secret(name: object) -> bool:
    """Whether the value of `name` is always text."""
    return isinstance(name, str) and _SECRET.fullmatch(name) is not None


def stays_text(place: Place, word: str) -> bool:
    """Whether `word`, as the value of the setting at `place`, stays text."""
    name = place[-1]
    if is_secret(name) or name in _OF_A_CONNECTION:
        return True
    if len(place) == 3 and place[0] == "kvs":
        return name in _OF_A_STORE or _AMBIGUOUS.fullmatch(word) is not None
    return name.startswith("redis_") and _AMBIGUOUS.fullmatch(word) is not None


def kept_as_text(value: yaml.Node, place: Place) -> yaml.Node:
    """The value of a setting, or a text node instead if the word stays text."""
    if isinstance(value, yaml.SequenceNode):
        value.value = [
            kept_as_text(item, place) if isinstance(item, yaml.ScalarNode) else item
            for item in value.value
        ]
    elif (
        isinstance(value, yaml.ScalarNode)
        and value.tag in WORDS
        and value.style is None
        and stays_text(place, value.value)
    ):
        # A new node, as an anchor can refer to this one in other places.
        return yaml.ScalarNode(TEXT, value.value, value.start_mark, value.end_mark)
    return value


def keep_text(root: yaml.Node | None) -> None:
    """Convert the words to text that stay text because of their block."""
    for pairs in _mappings(root):
        for key, block in pairs:
            if key.value in ("kvs", "redis_connections"):
                _keep_names(block)
                for item in block.value if isinstance(block, yaml.SequenceNode) else ():
                    _keep_names(item)
            if key.value == "kvs":
                for options in _entries(block):
                    _keep_in(options)


def _entries(block: yaml.Node) -> Iterator[yaml.Node]:
    """The options of the stores, in each form that the block can have."""
    items = block.value if isinstance(block, yaml.SequenceNode) else [block]
    for item in items:
        if isinstance(item, yaml.SequenceNode):
            yield from item.value[1:2]
        for pairs in _mappings(item):
            yield from (value for key, value in pairs if key.tag != MERGE)


def _mappings(node: yaml.Node | None) -> Iterator[list[tuple[yaml.Node, yaml.Node]]]:
    """The name-value pairs of a mapping and of the mappings that `<<` merges, each once."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode) and id(node) not in seen:
            seen.add(id(node))
            yield node.value
            for key, value in node.value:
                if key.tag == MERGE:
                    waiting += value.value if isinstance(value, yaml.SequenceNode) else [value]


def _keep_names(block: yaml.Node) -> None:
    """Convert the names of stores and connections to text: `1` is a name like `one`."""
    keys = [key for key, _ in block.value] if isinstance(block, yaml.MappingNode) else []
    if isinstance(block, yaml.SequenceNode):
        keys = block.value[:1]  # [name, options]
    for key in keys:
        if isinstance(key, yaml.ScalarNode) and key.tag in WORDS and key.style is None:
            key.tag = TEXT


def _keep_in(options: yaml.Node) -> None:
    for pairs in _mappings(options):
        for at, (key, value) in enumerate(pairs):
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                pairs[at] = key, kept_as_text(value, ("kvs", "", key.value))


def parse_word(place: Place, text: str) -> Any:
    """The value of the unquoted word `text` for the setting at `place`, as in YAML.

    A number, a boolean, a date, `None`, or the text itself. Raises `ValueError` if the word
    looks like a number or a date but is not valid.
    """
    loader: Any = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if tag != NULL and (tag not in WORDS or stays_text(place, text)):
        return text
    return construct(loader, yaml.ScalarNode(tag, text))


def construct(loader: Any, node: yaml.ScalarNode) -> Any:
    """The value of a scalar. Raises `ValueError` if it is not valid for its tag."""
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
