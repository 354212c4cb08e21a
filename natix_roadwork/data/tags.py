"""Scene-level tags: how they are written, and which word of a vocabulary each one is.

In come raw values such as `"['Sunny', 'Clear']"`; out go lists of tags as written, and their ids in a vocabulary: words
that mean the same share an id, a tag no vocabulary has is UNK, and a missing value is no id at all.
"""

import ast
import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np


# Text that says "not given", besides blank text, where a value is no free text; compared without case.
MISSING_WORDS = ("null", "none", "nan")

# Words of the data sets, as `_plain` writes them, and the vocabulary word each one means. A word that a vocabulary
# itself has stands for itself. NATIX writes Light, Dark, Twilight and Sunny, Urban, Suburban ...
TAG_ALIASES: dict[str, dict[str, str]] = {
    "weather": {
        **dict.fromkeys(("sun", "sunshine"), "sunny"),
        **dict.fromkeys(("rain", "raining", "drizzle", "showers", "light rain", "heavy rain"), "rainy"),
        **dict.fromkeys(("fog", "mist", "misty"), "foggy"),
        **dict.fromkeys(("clouds", "partly cloudy", "partially cloudy", "mostly cloudy"), "cloudy"),
        **dict.fromkeys(("clear sky", "clear skies"), "clear"),
        **dict.fromkeys(("snow", "snowing", "snowfall"), "snowy"),
    },
    "daytime": {
        **dict.fromkeys(("daytime", "daylight"), "day"),
        **dict.fromkeys(("dark", "nighttime", "night time"), "night"),
        **dict.fromkeys(("sunrise",), "dawn"),
        **dict.fromkeys(("twilight", "sunset"), "dusk"),
    },
    "scene": {
        **dict.fromkeys(("city", "downtown", "city street"), "urban"),
        **dict.fromkeys(("freeway", "motorway", "expressway", "interstate"), "highway"),
        **dict.fromkeys(("suburban", "suburb", "suburbs", "residential area", "neighborhood"), "residential"),
        **dict.fromkeys(("country", "countryside", "country road"), "rural"),
        **dict.fromkeys(("industrial area",), "industrial"),
        **dict.fromkeys(("commercial area", "business district"), "commercial"),
    },
}


def is_missing(value: object) -> bool:
    """Return whether a raw value means "not given": None, NaN, or a blank string."""
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def is_missing_text(value: object) -> bool:
    """Return whether a raw value is text that means "not given": blank, `null`, `None` or `nan` in any case."""
    return isinstance(value, str) and value.strip().casefold() in ("", *MISSING_WORDS)


def parse_tags(value: object) -> list[str]:
    """Read tags: a Python or JSON list as text such as `"['Sunny']"`, bare tags parted by `,` or `;`, or a list.

    Raises:
        ValueError: If a value that looks like a list cannot be read, or holds anything but strings.
    """
    if is_missing(value) or is_missing_text(value):
        return []
    tags = value
    if isinstance(value, str):
        text = value.strip()
        tags = read_literal(text) if text.startswith(("[", "(", "{")) else re.split("[,;]", text)
    if not isinstance(tags, (list, tuple, np.ndarray)) or not all(isinstance(t, str) or is_missing(t) for t in tags):
        raise ValueError("the tags are not a list of strings")
    return [str(tag).strip() for tag in tags if not is_missing(tag)]


def tag_ids(field: str, tags: Iterable[str], vocabulary: Sequence[str]) -> list[int]:
    """Look tags up in a vocabulary of n words, aliases included.

    Args:
        field: `weather`, `daytime` or `scene`; it chooses the aliases.
        tags: Tags of one row as written; case, `_` and `-` do not matter.
        vocabulary: The known words in the order of their ids.

    Returns:
        Distinct ids in the order of the tags: `0..n-1` for known words, n (UNK) for any other tag. Empty where no tag
        is given: tags that say "not given" count as none.
    """
    known = _known_words(field, tuple(vocabulary))
    ids = (known.get(_plain(tag), len(vocabulary)) for tag in tags if not is_missing_text(tag))
    return list(dict.fromkeys(ids))


@cache
def _known_words(field: str, vocabulary: tuple[str, ...]) -> dict[str, int]:
    """Id of each word of a vocabulary and of each alias that leads to one."""
    words = {_plain(word): number for number, word in enumerate(vocabulary)}
    return {alias: words[word] for alias, word in TAG_ALIASES[field].items() if word in words} | words


def read_literal(text: str) -> object:
    """Read the value of a JSON or Python literal; None for any other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _plain(tag: str) -> str:
    return " ".join(re.sub("[-_]", " ", tag.casefold()).split())
