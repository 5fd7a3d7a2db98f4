"""YAML as settings need it: safe, strict about names, and careful with passwords.

- Only plain data is built, as by `yaml.safe_load`.
- A name that a mapping gives twice is refused; YAML would keep the last in silence.
- The value of an option that is text is text, even where it looks like a number:
  `lo_kvs.settings.scalars`.
- No message quotes a value: it may be a password.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from lo_kvs.prestartup import StartupCheck
from lo_kvs.settings.scalars import MERGE, construct, keep_text, kept_as_text
from lo_kvs.settings.shown import name_shown

#: Names in one mapping, with those that `<<` brings in; a chain of merges could grow for ever.
_NAMES_MAX = 10_000


class _Refused(Exception):
    """What is wrong and on which line; no value is in it."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses a name given twice and leaves passwords as they are."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not in construct_mapping, where `<<` has already brought its own names in.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, object], int] = {}
        for index, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _Refused(
                    f"line {line}: {_quoted(key.value)} is there already, on line {lines[name]}: "
                    "keep one of the two"
                )
            lines[name] = line
            node.value[index] = (key, kept_as_text(value, (key.value,)))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merges = any(key.tag == MERGE for key, _ in node.value)
        super().flatten_mapping(node)
        if not merges:
            return
        # The last of a name wins. Merges of merges would double what they have in common.
        last = {_identity(key): (key, value) for key, value in node.value}
        node.value = list(last.values())
        if len(last) > _NAMES_MAX:
            raise _Refused(f"line {node.start_mark.line + 1}: a mapping with too many names")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):  # 1 and 0x1
            raise _Refused(
                f"line {node.start_mark.line + 1}: two names of a mapping mean the same: keep one"
            )
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep=deep)
        try:
            return construct(self, node)
        except ValueError:
            raise _Refused(
                f"line {node.start_mark.line + 1}: a value looks like a number or a date and is "
                "none, or has too many digits: put quotes around it"
            ) from None


def _identity(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _quoted(name: str) -> str:
    return f"`{name}`" if re.fullmatch(r"\w+", name, re.ASCII) else name_shown(name)


def parse_yaml(text: str, source: str) -> Any:
    """What the YAML `text` holds; `None` where it holds nothing.

    `source` names the file in messages. Raises `StartupCheck` where the text is no YAML,
    where a mapping gives a name twice, and where a value cannot be what it looks like.
    """
    reason: str
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            keep_text(root)
            return None if root is None else loader.construct_document(root)
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
