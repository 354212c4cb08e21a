"""Cards of a published model: README.md for people, model_card.json for the subnet, both from its result.json alone.

In comes the record of a training to which `publish.py` has added `details.published`; out go the two files. A card that
was rendered once can so be rendered again, by `natix-roadwork card`.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from natix_roadwork.data.feature_shards import write_whole
from natix_roadwork.hub import model_card_json
from natix_roadwork.hub.backbone_licences import BackboneLicence, backbone_licence
from natix_roadwork.model.checkpoint import is_hub_id
from natix_roadwork.runs import RESULT_NAME, RunResult, interval_text


CARD_NAME = "README.md"
PUBLISHED = "published"
SHOWN = ("mcc", "mcc_balanced", "accuracy", "fnr", "auc", "ece")
SPLIT_NAMES = {
    "dev": "dev (held out of training)",
    "test": "test (the data set's own)",
    "held_out": "held out (calibrated out of fold)",
}
_UNKNOWN_METRIC = {"value": None, "low": None, "high": None}


def render_card(result: RunResult) -> str:
    """Fill the card's template.

    Raises:
        ValueError: If the record was never published.
    """
    loader = PackageLoader("natix_roadwork.hub", "templates")
    environment = Environment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("model_card.md.jinja").render(card_values(result))


def training_config(result: RunResult) -> dict[str, Any]:
    """Return the settings of a model's training; a calibrated copy's record keeps them among its details."""
    return (result.details.get("calibrated_from") or {}).get(RESULT_NAME) or result.config


def write_cards(folder: str | Path, result: RunResult) -> None:
    """Write README.md, and model_card.json where a hotkey is known."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD_NAME, render_card(result).encode())
    if _published(result)["hotkey"] is not None:
        model_card_json.write(folder, **subnet_card(result))


def subnet_card(result: RunResult) -> dict[str, Any]:
    """Return what the subnet reads: name, description, version, hotkey and time of submission, seconds since 1970.

    Raises:
        ValueError: If no hotkey is known, or the record was never published.
    """
    published = _published(result)
    if published["hotkey"] is None:
        raise ValueError("hotkey=None: the subnet's card names the wallet that submits the model; give --hotkey")
    return {
        "model_name": published["name"],
        "description": "Probability of roadwork in a street photo, from twelve views of it.",
        "version": published["version"],
        "submitted_by": published["hotkey"],
        "submission_time": published["submitted_at"],
    }


def card_values(result: RunResult) -> dict[str, Any]:
    """Return everything that the template names."""
    published, config = _published(result), training_config(result)
    model = published["model"]
    licences = list(dict.fromkeys(backbone_licence(name) for name in published["backbones"]))
    kept = result.data.get("counts", {}).get("kept", {})
    splits = [split for split in SPLIT_NAMES if split in result.metrics]
    backbones = [_backbone_name(name) for name in published["backbones"]]
    return {
        "name": published["name"],
        "repo": published["repo_id"] or "path/to/this/folder",
        "licence": licences[0] if len(licences) == 1 else BackboneLicence("several", "other", ""),
        "licence_name": "-".join(one.name.lower().replace(" ", "-") for one in licences) + "-license",
        "licences": licences,
        "base_models": [
            name for name in published["backbones"] if not name.startswith("embedded:") and is_hub_id(name)
        ],
        "dataset": config.get("dataset_name"),
        "dataset_id": result.data.get("name") if result.data.get("commit") else "",
        "drawn": any("drawn scenes" in warning for warning in result.warnings),
        "num_views": model["num_views"],
        "view_size": model["view_size"],
        "backbone": backbones[0],
        "trainable": f"{model['head_parameters'] / 1e6:.1f} million",
        "reads": ", ".join([*model["metadata_fields"], *model.get("side_inputs", [])]),  # older records name none
        "train_photos": sum(kept.get("train", {}).values()),
        "train_roadwork": kept.get("train", {}).get("Roadwork", 0),
        "rows": [_split_row(result, split, kept) for split in splits] or [_no_row()],
        "leak_rule": _leak_rule(config),
        "chosen": _chosen(result),
        "lockbox": _lockbox_values(published["lockbox"]),
        "baselines": _baseline_rows(result, splits[0] if splits else ""),
        "baseline_split": "held out photos" if "held_out" in splits else splits[0] if splits else "",
        "recipe": f"`{_recipe(result)}`",
        "commit": f"`{result.commit[:12]}`" + (" with changes" if result.dirty else "")
        if result.commit
        else "unknown",
        "seed": result.seed,
        "duration": f"{result.wall_seconds / 60:.0f} minutes"
        if result.wall_seconds < 7200
        else f"{result.wall_seconds / 3600:.1f} hours",
        "machine": _machine(result),
        "command": " ".join(result.command),
        **_slice_values(published["slices"]),
        "warnings": [_sentence(warning) for warning in result.warnings],
        "backbone_in_checkpoint": published["backbone_in_checkpoint"],
        "calibration": published["calibration"],
        "adapters": published["adapters"],
        "members": published["ensemble"]["members"] if published["ensemble"] else [],
        "method": published["ensemble"]["method"] if published["ensemble"] else "",
        "statistics": published["statistics"],
    }


def _sentence(warning: str) -> str:
    """A warning of a run as a sentence, without the label's name None, which a reader would take for a gap."""
    told = re.sub(r"(\d+) None and (\d+) Roadwork rows", r"\1 photos without roadwork and \2 with it", warning)
    return f"{told[:1].upper()}{told[1:]}."


def _published(result: RunResult) -> dict[str, Any]:
    if PUBLISHED not in result.details:
        raise ValueError(
            "the record has no details.published, so nothing says what lies beside the card; publish the model first"
        )
    return result.details[PUBLISHED]


def _texts(metrics: dict[str, Any]) -> dict[str, str]:
    return {name: interval_text(metrics.get(name, _UNKNOWN_METRIC)) for name in SHOWN}


def _split_row(result: RunResult, split: str, kept: dict[str, Any]) -> dict[str, Any]:
    photos = sum(kept[split].values()) if split in kept else result.details["rows"]
    return {"split": SPLIT_NAMES[split], "photos": photos} | _texts(result.metrics[split])


def _no_row() -> dict[str, Any]:
    return {"split": "not scored", "photos": 0} | _texts({})


def _leak_rule(config: dict[str, Any]) -> str:
    alike = " and no near-duplicate picture" if config.get("near_duplicates", True) else ""
    return (
        f"Photos of one split share no video or sequence, no place within 100 m (where places are known){alike} with photos "
        "of another: what belongs together stays in one split, and training photos that belong to a given dev or test "
        "split were dropped and counted."
    )


def _chosen(result: RunResult) -> str:
    if "calibrated_from" in result.details:
        return "Each photo's margin was mapped by what was fitted on other groups."
    if result.details.get("chosen_on") == "selection":
        return "The epoch was chosen on a part of the training photos, so dev had no part in any choice of this run."
    return "The epoch was chosen on dev, so its score is somewhat optimistic."


def _lockbox_values(lockbox: dict[str, Any]) -> dict[str, Any]:
    entries = lockbox["entries"]
    first = entries[0]["lockbox"] if entries else {"name": "", "rows": 0, "roadwork": 0}
    return {
        "name": first["name"],
        "photos": first["rows"],
        "roadwork": first["roadwork"],
        "rows": [
            {"answers": entry["answers"], "date": entry["date"][:10]} | _texts(entry["scores"]) for entry in entries
        ],
        "taught": ", ".join(entry["answers"] for entry in entries if entry["taught_by_it"]),
        "earlier": lockbox["earlier"],
        "why_not": lockbox["why_not"],
    }


def _baseline_rows(result: RunResult, split: str) -> list[dict[str, str]]:
    return [
        {"name": name.replace("_", " ")} | _texts(metrics[split])
        for name, metrics in result.baselines.items()
        if split in metrics
    ]


def _slice_values(slices: list[dict[str, Any]]) -> dict[str, Any]:
    told = [score for score in slices if not score["too_few"]]
    rows = [
        {
            "name": f"{score['dimension']}: {score['value']}",
            "photos": score["num_rows"],
            "mcc": interval_text(score["mcc"]),
            "fnr": interval_text(score["fnr"]),
            "excess": interval_text(score["excess"], "+"),
        }
        for score in told
    ]
    return {"slices": rows, "slices_left_out": len(slices) - len(told)}


def _recipe(result: RunResult) -> str:
    words = result.command
    if "--config" in words[:-1]:
        return words[words.index("--config") + 1]
    return next((word for word in words if word.endswith((".yaml", ".py"))), "unknown")


def _machine(result: RunResult) -> str:
    gpu, cpus = result.environment.get("gpu"), result.environment.get("cpu_count")
    return f"{gpu}" if gpu else f"{cpus} CPU cores"


def _backbone_name(backbone_id: str) -> str:
    return f"`{backbone_id.removeprefix('embedded:')}`"
