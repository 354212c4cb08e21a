"""`model_card.json`, the small card that NATIX's subnet asks for beside a model: writing it, and the rules it was held to.

The rules are those of the validators' own check (`natix/validator/verify_models.py`, in use until 2025-11-30; the server's
at registration is not public). What that check refused is `fatal`; the rest is worth a warning. Publishing writes such
cards, `natix-roadwork check` reads them.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from natix_roadwork.data.feature_shards import write_whole


MODEL_CARD_NAME = "model_card.json"
REQUIRED = ("model_name", "version", "submitted_by", "submission_time")
EARLIEST = 946_684_800  # 2000-01-01 in seconds
LARGEST_SECONDS = 10**12  # larger numbers are milliseconds
AGES = (45, 90)  # days after which the subnet's documents announce decay, and none at all; no code does either
DAY = 86_400
_REPO_ID = re.compile(r"[\w\-]+/[\w\-]+(?:/[\w\-/]*)?")
_HUB_URL = re.compile(r"^https?://huggingface\.co")
_SEMVER = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True)
class CardProblem:
    """What is wrong with a card.

    Attributes:
        key: The key it is about.
        message: What is wrong and what to do, for a reader.
        fatal: Whether the validators' check refused such a card.
    """

    key: str
    message: str
    fatal: bool = True


def write(
    folder: str | Path,
    *,
    model_name: str,
    description: str,
    version: str,
    submitted_by: str,
    submission_time: int | None = None,
    **more: str,
) -> Path:
    """Write `model_card.json` into a model's folder, whole or not at all.

    Args:
        folder: The model's folder, which must be there.
        model_name: Name that no other miner has used.
        description: What it is, in a sentence.
        version: As in `1.0.0`.
        submitted_by: The miner's hotkey, an SS58 address.
        submission_time: Seconds since 1970; None = now.
        more: Further texts, such as `architecture` and `notes`.

    Returns:
        The file's path.

    Raises:
        ValueError: If the validators' check would refuse the card, or there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder={str(folder)!r} is not there; save the model first")
    card = {
        "model_name": model_name,
        "description": description,
        "version": version,
        "submitted_by": submitted_by,
        "submission_time": int(time.time()) if submission_time is None else submission_time,
        **more,
    }
    problems = [problem for problem in validate(card) if problem.fatal]
    if problems:
        raise ValueError(f"{MODEL_CARD_NAME}: {'; '.join(problem.message for problem in problems)}")
    path = Path(folder) / MODEL_CARD_NAME
    write_whole(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def read(path: str | Path) -> dict[str, Any]:
    """Read a card's file.

    Raises:
        ValueError: If it is not there, or no JSON object.
    """
    try:
        card = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} holds a {type(card).__name__}; a card is an object with {', '.join(REQUIRED)}")
    return card


def validate(card: Mapping[str, Any], now: float | None = None) -> list[CardProblem]:
    """List what is wrong with a card, the worst first.

    Args:
        card: The content of the file.
        now: Seconds since 1970 that count as now; None = the clock's.
    """
    problems = [CardProblem(key, f"{key} is missing") for key in REQUIRED if key not in card]
    for key in ("model_name", "submitted_by"):
        if key in card and not (isinstance(card[key], str) and card[key].strip()):
            problems.append(
                CardProblem(key, f"{key}={card[key]!r} is no text; the check compares it letter by letter")
            )
    if "submission_time" in card:
        problems += _time_problems(card["submission_time"], time.time() if now is None else now)
    if "version" in card and not (isinstance(card["version"], str) and _SEMVER.fullmatch(card["version"])):
        problems.append(CardProblem("version", f"version={card['version']!r} is not of the form 1.0.0", fatal=False))
    if not card.get("description"):
        problems.append(
            CardProblem("description", "description is missing, which the subnet's guide asks for", fatal=False)
        )
    hotkey = card.get("submitted_by")
    if isinstance(hotkey, str) and hotkey.strip() and not is_ss58(hotkey):
        text = f"submitted_by={hotkey!r} is no SS58 address, so it equals no miner's hotkey"
        problems.append(CardProblem("submitted_by", text, fatal=False))
    return sorted(problems, key=lambda problem: not problem.fatal)


def submission_seconds(value: object) -> float:
    """Read a `submission_time`: seconds, milliseconds, digits as text, or an ISO time with a `T`.

    Returns:
        Seconds since 1970. An ISO time without an offset counts as UTC.

    Raises:
        ValueError: For anything else, a date without a time included.
    """
    if isinstance(value, str) and "T" in value:
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise ValueError(f"submission_time={value!r} is no ISO time: {error}") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 10**18:
        raise ValueError(
            f"submission_time={value!r} is neither seconds nor milliseconds nor an ISO time such as 2026-01-31T12:00:00Z"
        )
    return value / 1000 if value > LARGEST_SECONDS else float(value)


def repo_id_problem(repo_id: str) -> str | None:
    """Say why the subnet refuses a Hub repository's name; None where it takes it.

    The Hub's address in front and slashes around it are cut off. A dot is refused, which the Hub itself allows.
    """
    name = _HUB_URL.sub("", repo_id.strip()).strip("/")
    if _REPO_ID.fullmatch(name):
        return None
    why = "a dot is refused" if "." in name else "it must be owner/name of letters, digits, _ and -"
    return f"repo id {repo_id!r}: {why}; rename the repository"


def is_ss58(address: str) -> bool:
    """Say whether a text is an SS58 address of 32 bytes, by its length and checksum."""
    if not address or any(letter not in _BASE58 for letter in address):
        return False
    number = 0
    for letter in address:
        number = number * 58 + _BASE58.index(letter)
    data = number.to_bytes(max(35, (number.bit_length() + 7) // 8), "big")
    return len(data) == 35 and hashlib.blake2b(b"SS58PRE" + data[:-2]).digest()[:2] == data[-2:]


def _time_problems(value: object, now: float) -> list[CardProblem]:
    key = "submission_time"
    try:
        seconds = submission_seconds(value)
    except ValueError as error:
        return [CardProblem(key, str(error))]
    if seconds < EARLIEST:
        return [CardProblem(key, f"{key}={value!r} lies before 2000-01-01")]
    if seconds > now:
        ahead = (seconds - now) / 3600
        return [
            CardProblem(key, f"{key}={value!r} lies in the future, {ahead:.1f} hours ahead of this machine's clock")
        ]
    days, (full, last) = (now - seconds) / DAY, AGES
    if days <= full:
        return []
    what = (
        f"beyond {last}, when the documents let a model expire"
        if days > last
        else f"beyond {full}, when they announce decay"
    )
    return [CardProblem(key, f"the submission is {days:.0f} days old, {what}; no validator code does so", fatal=False)]
