"""Does training on dark photos make a model better on them? Weights of bright rows against all rows alike, by seed.

    OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 python tests/benchmarks/night.py runs/night model_cards/results/night_scenes.json

Draws 1,000 scenes of which 22 % are at night and 18 % at dusk, trains `recipes/pretrain/quickstart.yaml` with dev untouched
by the choice of the epoch, and compares on the dev rows, dark and others apart: each model with that of all rows of its seed,
and the mean of the three seeds of both kinds with that of all rows alone. About a quarter of an hour on two cores.
"""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from natix_roadwork.data import scene_plan
from natix_roadwork.data.brightness import brightness_of
from natix_roadwork.data.predictions import Predictions, read_predictions
from natix_roadwork.data.scenes import write_scenes
from natix_roadwork.environment import environment, git_state
from natix_roadwork.inference.arguments import PredictArguments
from natix_roadwork.inference.predict import predict
from natix_roadwork.inference.predict_inputs import load_predicted
from natix_roadwork.metrics import metrics_with_intervals, paired_difference
from natix_roadwork.runs import read_result
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.pretraining import pretrain
from natix_roadwork.training.yaml_args import parse_recipe


SHARE, SEEDS = 0.35, (0, 1, 2)
WEIGHTS = {"all rows": None, "dark rows alone": 0.0, "others at 0.2": 0.2, "others at 0.5": 0.5}
SPLIT = {"dev_share": 0.4, "split_seed": 42, "selection_share": 0.2}
FIGURES = ("mcc", "auc")


def draw(folder: Path) -> None:
    """Two drawings of 500 scenes as one data set."""
    folder.mkdir(parents=True)
    with patch.object(scene_plan, "DAYTIME_SHARES", (0.6, 0.22, 0.18)):
        for number, seed in enumerate((21, 22)):
            part = folder.with_name(f"part{number}")
            write_scenes(part, num_rows=500, positive_share=0.5, test_share=0.0, seed=seed, masks=False)
            shutil.copy(part / "scenes.json", folder)
            for place, shard in enumerate(sorted(part.glob("train-*.parquet"))):
                shutil.copy(shard, folder / f"train-{5 * number + place:05}.parquet")


def member(folder: Path, name: str, seed: int) -> Predictions:
    """Train one model and predict the dev rows with it."""
    output = folder / f"{name.replace(' ', '_')}_{seed}"
    keys = {"dataset_name": folder / "scenes", "feature_cache": folder / "tokens", "output_dir": output, **SPLIT}
    keys |= {"seed": seed, "baselines": "false", "report_to": "none", "disable_tqdm": "true"}
    if WEIGHTS[name] is not None:
        keys |= {"darkest_share": SHARE, "bright_weight": WEIGHTS[name]}
    words = ["--config", "recipes/pretrain/quickstart.yaml", *(f"--{key}={value}" for key, value in keys.items())]
    pretrain(*parse_recipe(words, (PretrainArguments, RoadworkTrainingArguments)))
    settings = _rows(folder, model=str(output), output_dir=str(output.with_name(f"{output.name}_dev")))
    predict(settings)
    return read_predictions(settings.path)


def _rows(folder: Path, **keys: str) -> PredictArguments:
    return PredictArguments(
        dataset_name=str(folder / "scenes"), feature_cache=str(folder / "tokens"), dev_share=SPLIT["dev_share"],
        seed=SPLIT["split_seed"], use_cpu=True, existing_run="overwrite", **keys,
    )  # fmt: skip


def compare(found: dict[str, list[Predictions]], mask: NDArray[np.bool_]) -> dict[str, object]:
    """Figures of some dev rows: each seed, minus all rows in pairs, and what the means of three do together."""
    first = found["all rows"][0].select(np.flatnonzero(mask))
    labels, groups = first.labels, first.groups
    answers = {name: np.stack([one.probabilities[mask] for one in members]) for name, members in found.items()}
    everything, result = answers["all rows"], {}
    for name, probabilities in answers.items():
        scores = [metrics_with_intervals(labels, one, groups=groups) for one in probabilities]
        result[name] = {"seeds": [{figure: score[figure] for figure in FIGURES} for score in scores]}
        result[name]["mean"] = {
            figure: float(np.mean([score[figure]["value"] for score in scores])) for figure in FIGURES
        }
        if name == "all rows":
            continue
        pairs = [paired_difference(labels, *two, groups=groups) for two in zip(probabilities, everything, strict=True)]
        both = (probabilities.mean(axis=0) + everything.mean(axis=0)) / 2
        result[name]["minus_all_rows"] = {
            "value": float(np.mean([pair.value for pair in pairs])),
            "standard_error": float(np.mean([pair.standard_error for pair in pairs])),
        }
        result[name]["as_member"] = asdict(paired_difference(labels, both, everything.mean(axis=0), groups=groups))
    return {"rows": len(labels), "roadwork": int(labels.sum()), "models": result}


def main(folder: Path, output: Path) -> None:
    """Draw, train, compare, write."""
    if not (folder / "scenes").is_dir():
        draw(folder / "scenes")
    found = {name: [member(folder, name, seed) for seed in SEEDS] for name in WEIGHTS}
    settings = _rows(folder, model="none", member="rows")
    levels = brightness_of(load_predicted(settings, settings.state())[1]["dev"])
    record = read_result(folder / "dark_rows_alone_0" / "result.json").details["brightness"]
    commit, dirty = git_state()
    result = {
        "command": sys.argv, "commit": commit, "dirty": dirty, "environment": environment(), "brightness": record,
        "darkest_share": SHARE, "dark": compare(found, levels <= record["grey_level_limit"]),
        "other": compare(found, levels > record["grey_level_limit"]), "all": compare(found, levels >= 0),
    }  # fmt: skip
    output.write_text(json.dumps(result, indent=1) + "\n")
    for part in ("dark", "other", "all"):
        print(part, result[part]["rows"])
        for name, figures in result[part]["models"].items():
            print(f"  {name:18}", figures["mean"], figures.get("minus_all_rows"), figures.get("as_member"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
