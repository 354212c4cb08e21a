"""The challenges of a simulation, with their answers: from prediction files, or by asking a model about validator views.

In come files or a folder; out go a `ChallengePool` for each member or regime, what is known of the data, and warnings
that count and name the rows left out. `simulation_run.py` simulates and reports.
"""

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from natix_roadwork.data.imagefolder import scan_imagefolder
from natix_roadwork.data.natix_columns import parse_label
from natix_roadwork.data.photo_batches import photo_source
from natix_roadwork.data.predictions import Predictions, read_predictions
from natix_roadwork.data.sources import METADATA_FILE
from natix_roadwork.inference.challenge_answers import FolderAnswers
from natix_roadwork.inference.ensemble import Ensemble
from natix_roadwork.inference.member import Lesson, recorded_lesson
from natix_roadwork.inference.member_table import honest_rows, member_table, require_originals
from natix_roadwork.inference.predict_inputs import load_predicted
from natix_roadwork.inference.reward_simulation import ChallengePool
from natix_roadwork.inference.simulation_arguments import NOTHING, SimulateArguments
from natix_roadwork.model.photo import load_photo
from natix_roadwork.runs import RESULT_NAME, read_result
from natix_roadwork.subnet.challenge import PRESETS, REGIMES, validator_view


SYNTHETIC = "synthetic"
_NAMED = 3  # row ids or errors in a message


@dataclass
class Pools:
    """What is simulated.

    Attributes:
        pools: Challenges with answers, by the name of a member or a regime.
        data: What `result.json` keeps of the data.
        warnings: What a reader must know: rows left out, answers that failed.
    """

    pools: dict[str, ChallengePool]
    data: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Picture:
    """A picture to be asked about, still encoded."""

    row_id: str
    source: bytes | str
    label: int
    group: str
    synthetic: bool = False


def pools_of_predictions(paths: list[str], ensemble: str | None = None) -> Pools:
    """Make one pool a member, or one of all members, of held-out rows; `test` is kept back, being a lockbox as a rule.

    Raises:
        ValueError: If a file cannot be used, no held-out rows of both classes are left, or the ensemble is of others.
    """
    members = [read_predictions(path) for path in paths]
    names = [member.member for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"predictions={paths}: two members share a name ({sorted(names)}); give each its own")
    made = _combined(members, ensemble) if ensemble else _apart(members)
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()
    counts = {name: len(pool.labels) for name, pool in made.pools.items()}
    return replace(made, data={"name": None, "source": "predictions", "fingerprint": digest, "counts": counts})


def pools_of_model(arguments: SimulateArguments) -> Pools:
    """Ask a model's folder about the validator views of held-out rows: one pool a regime.

    Raises:
        ValueError: If the model or the rows cannot be used, or the model has learned from all of them.
    """
    answers = FolderAnswers(str(arguments.model), arguments.rows.state().device)
    loaded, splits = load_predicted(arguments.rows, arguments.rows.state())
    trained = Path(str(arguments.model)) / RESULT_NAME
    lesson = recorded_lesson(read_result(trained) if trained.is_file() else None, loaded, arguments.rows)
    lesson = _declared(lesson, arguments)
    warnings = [*lesson.warnings, *_left_out(splits, lesson)]
    kept = {name: rows for name, rows in splits.items() if name not in lesson.splits}
    if not kept:
        raise ValueError(
            f"no row to draw challenges from: {'; '.join(warnings)}. Give splits that taught the model nothing (train with "
            "--selection_share for an unseen dev), or say with --learned_from which ones did, none among the answers"
        )
    generated, problems = _generated(arguments.synthetic_folder)
    count = sum(len(rows) for rows in kept.values()) + len(generated)
    pictures = itertools.chain((_photo(row) for rows in kept.values() for row in rows), generated)
    pools, failures = _ask(answers, pictures, count, arguments)
    return Pools(pools, loaded.as_dict(), warnings + problems + failures)


def _apart(members: list[Predictions]) -> Pools:
    pools, warnings = {}, []
    for member in members:
        require_originals(member)
        honest, refused = honest_rows([member])
        if not honest.any():
            raise ValueError(f"no row to draw challenges from: {'; '.join(refused)}. Predict an unseen split")
        kept = member.select(honest)
        pools[member.member] = _pool(kept.labels, kept.groups, kept.probabilities)
        warnings += refused
    return Pools(pools, {}, warnings)


def _combined(members: list[Predictions], path: str) -> Pools:
    ensemble, table = Ensemble.load(path), member_table(members)
    if set(table.names) != set(ensemble.members):
        raise ValueError(f"ensemble={path!r} is of {list(ensemble.members)}, predictions are of {list(table.names)}")
    table = table.pick([table.names.index(name) for name in ensemble.members])
    margins = ensemble.margins(table.logits)
    warning = (
        f"the ensemble was fitted on {ensemble.num_rows} held-out rows, perhaps these {len(table)}; its nested scores in the "
        "result.json of recipes/ensemble.py are the honest ones"
    )
    pool = _pool(table.labels, table.groups, 0.5 * (1.0 + np.tanh(0.5 * margins)))
    return Pools({"ensemble": pool}, {}, [*table.notes, warning])


def _pool(labels: NDArray, groups: NDArray, probabilities: NDArray) -> ChallengePool:
    return ChallengePool(labels, groups, probabilities[:, None], np.zeros(len(labels), dtype=bool))


def _declared(lesson: Lesson, arguments: SimulateArguments) -> Lesson:
    """Let the user say what no record says; a record is only added to."""
    if arguments.learned_from is None:
        return lesson
    said = [name for name in arguments.learned_from if name != NOTHING]
    known = lesson.splits if not lesson.warnings else []
    word = f"that the model has learned from {said or 'none'} of these rows is the user's word (learned_from)"
    return Lesson(sorted({*known, *said}), [word])


def _left_out(splits: dict[str, Dataset], lesson: Lesson) -> list[str]:
    return [
        f"the model has learned from the {len(rows)} rows of {name}, {rows['row_id'][:_NAMED]} among them; they are left out"
        for name, rows in splits.items()
        if name in lesson.splits
    ]


def _photo(row: dict[str, Any]) -> _Picture:
    return _Picture(row["row_id"], photo_source(row["image"]), row["label"], row["group"])


def _generated(folder: str | None) -> tuple[list[_Picture], list[str]]:
    """Read the generated pictures; lines and files that are no picture are counted and named."""
    if folder is None:
        return [], []
    path = Path(folder)
    if not (path / METADATA_FILE).is_file():
        raise ValueError(
            f"synthetic_folder={folder!r} has no {METADATA_FILE}; list its pictures with file_name and label"
        )
    scan = scan_imagefolder(path, SYNTHETIC)
    made = []
    for name, record in scan.records.items():
        try:
            label = parse_label(record.get("label"))
        except ValueError as error:
            raise ValueError(f"synthetic_folder={folder!r}: {name}: {error}") from None
        row_id, group = (f"{SYNTHETIC}/{value}" for value in (name, record.get("group") or name))
        made.append(_Picture(row_id, str(path / name), label, group, synthetic=True))
    found = [f"{problem.row_id} ({problem.reason})" for problem in scan.problems]
    problems = [f"{len(found)} lines or files of {folder} are left out: {', '.join(found[:_NAMED])}"] if found else []
    return made, problems


def _ask(
    answers: FolderAnswers, pictures: Iterable[_Picture], count: int, arguments: SimulateArguments
) -> tuple[dict[str, ChallengePool], list[str]]:
    """Make every view of every picture once, and ask about it; also say which answers failed."""
    found = {name: np.empty((count, len(PRESETS[name].levels))) for name in arguments.regimes}
    asked: list[_Picture] = []
    failures: list[str] = []
    for row, picture in enumerate(tqdm(pictures, total=count, desc="photos", unit="photo", disable=None)):
        photo = Image.fromarray(load_photo(picture.source, arguments.max_megapixels, picture.row_id))
        asked.append(replace(picture, source=""))  # its pixels are not kept
        for name in arguments.regimes:
            for column, level in enumerate(PRESETS[name].levels):
                rng = np.random.default_rng([arguments.seed, REGIMES.index(name), level, row])
                answer = answers(validator_view(photo, name, level, rng))
                found[name][row, column] = answer.probability
                if answer.error:
                    failures.append(f"{picture.row_id}, regime {name}, level {level}: {answer.error}")
    synthetic = np.array([picture.synthetic for picture in asked])
    pools = {
        name: ChallengePool(
            labels=np.array([picture.label for picture in asked]),
            groups=np.array([picture.group for picture in asked]),
            answers=values,
            synthetic=synthetic,
            synthetic_share=PRESETS[name].synthetic_share if synthetic.any() else 0.0,
        )
        for name, values in found.items()
    }
    if not failures:
        return pools, []
    return pools, [f"{len(failures)} views have no answer (-1, reward 0): {'; '.join(failures[:_NAMED])}"]
