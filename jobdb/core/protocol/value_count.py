"""Counting the values of a JSON text before anything is built from it.

A payload of 256 KiB can hold a hundred thousand values, each of which becomes an object of Python: it then takes forty
times its size in memory and a hundred times as long as a text of that size. So they are counted in the text, by
searches that run in C. Called by :mod:`.wire`.
"""

from __future__ import annotations


def has_more_values(text: str, limit: int) -> bool:
    """Return whether a JSON text has more than ``limit`` values: objects, arrays, strings, numbers, literals.

    The keys of objects are none; the whole is one. For a text that is not JSON the answer means nothing.
    """
    if len(text) <= limit:
        return False
    # Each value but the first follows a comma or is the first of its container. There may be commas within strings.
    if 1 + text.count(",") + text.count("[") + text.count("{") <= limit:
        return False
    bare = text.replace("\\\\", "").replace('\\"', "")  # what is left of quotation marks begins or ends a string
    if bare.count('"') > 4 * limit:  # a string is a key or a value, and there are not more keys than values
        return True
    outside = "s".join(bare.split('"')[::2])
    for blank in " \t\r\n":
        outside = outside.replace(blank, "")
    first = sum(map(outside.count, "[{")) - outside.count("[]") - outside.count("{}")
    return 1 + outside.count(",") + first > limit
