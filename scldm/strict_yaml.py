"""YAML without traps: what is written twice, grows when it is read, or would be read as something else is refused."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["read_yaml"]

#: Values of a document with all its aliases written out.
LARGEST_DOCUMENT = 100_000


class _Loader(yaml.SafeLoader):
    """Plain values only. No dates, no numbers to the base 60 or 8: ``1:30`` and ``010`` are text, as they look."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice; the last would count."""
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is there twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


_INT, _TIMESTAMP = "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _TIMESTAMP)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises
    ------
    yaml.YAMLError
        If it is none, if a key is there twice, or if its aliases make too much of it.
    ValueError
        For a number that cannot be read.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > LARGEST_DOCUMENT:
            raise yaml.YAMLError(f"with its aliases written out it has more than {LARGEST_DOCUMENT:,} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node with all aliases written out; raises ``YAMLError`` if one leads to itself."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise yaml.YAMLError("an alias leads to itself")
        return known[id(node)]
    known[id(node)] = -1
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_size(child, known) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        total += sum(_size(key, known) + _size(value, known) for key, value in node.value)
    known[id(node)] = total
    return total
