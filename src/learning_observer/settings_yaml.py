"""YAML as settings need it: safe, strict about names, and careful with passwords.

- Only plain data is built, as by `yaml.safe_load`.
- A name that a mapping gives twice is refused; YAML would keep the last in silence.
- The value of a name such as `redis_password` is text, even where it looks like a number.
- No message quotes a value: it may be a password.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from learning_observer.prestartup import StartupCheck

# Nothing wider, `require_password: false` must stay a boolean.
_SECRET = re.compile(r"(?:redis_(?:\w+_)?)?(?:password|passwd|passphrase)")
_TAG = "tag:yaml.org,2002:"
# What a word can be other than text; a password is none of it, and so is no other tag.
_WORDS = {_TAG + name for name in ("bool", "int", "float", "timestamp")}


def is_secret(name: object) -> bool:
    """Whether the value of `name` is text, whatever it looks like."""
    return isinstance(name, str) and _SECRET.fullmatch(name) is not None


def parse_word(name: str, text: str) -> Any:
    """What YAML makes of the unquoted word `text` as the value of `name`.

    A number, a boolean, a date, `None`, or the text itself. Raises `ValueError` where the
    word looks like a date and is none.
    """
    loader: Any = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    if tag != _TAG + "null" and (tag not in _WORDS or is_secret(name)):
        return text
    return loader.construct_object(yaml.ScalarNode(tag, text))


class _Refused(Exception):
    """What is wrong and on which line; no value is in it."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses a name given twice and leaves passwords as they are."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not in construct_mapping, where `<<` has already brought its own names in.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, object], int] = {}
        for index, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode) or key.tag == _TAG + "merge":
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _Refused(
                    f"line {line}: `{key.value}` is there already, on line {lines[name]}: "
                    "keep one of the two"
                )
            lines[name] = line
            if is_secret(key.value) and isinstance(value, yaml.ScalarNode) and value.tag in _WORDS:
                node.value[index] = (key, yaml.ScalarNode(_TAG + "str", value.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError:  # 2026-02-31
            raise _Refused(
                f"line {node.start_mark.line + 1}: a value looks like a number or a date and is "
                "none: put quotes around it"
            ) from None


def parse_yaml(text: str, source: str) -> Any:
    """What the YAML `text` holds; `None` where it holds nothing.

    `source` names the file in messages. Raises `StartupCheck` where the text is no YAML,
    where a mapping gives a name twice, and where a value cannot be what it looks like.
    """
    reason: str
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _Refused as refused:
        reason = str(refused)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"line {line} is not YAML: it has a control character in it"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1} is" if mark else "this is"
        # What PyYAML quotes is taken from the file, and may be a password.
        problem = re.sub(r"[\"'`].*[\"'`]", "...", error.problem or "", flags=re.DOTALL)
        reason = (
            f"{place} not YAML ({problem}): look for a missing colon, a tab, a wrong "
            "indentation, or a value that needs quotes around it, there or just before"
        )
    except RecursionError:
        reason = "is nested too deeply"
    raise StartupCheck(f"{source}: {reason}")  # out here, so that no traceback shows the file
