"""The rows of an ablation: the order of proof, and each component switched on or off.

In come the default's settings, out go rows as data: what changes, and against which row it is compared. `ablation_bench.py`
finds out which of them this data set and backbone can measure, and measures them.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from natix_roadwork.model.configuration_roadwork import RoadworkConfig
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.baselines import BASELINES


PROOF = "order of proof"
DEFAULT = "default"
PROBE = "metadata_probe"
CONSISTENCY, WEATHER, MASK = 0.25, 0.15, 0.2  # weights of the terms where the default lacks them
KEPT = 8  # views of the pruning where the default keeps all


@dataclass(frozen=True)
class AblationRow:
    """One row of the table.

    Attributes:
        name: Its name, also of its file.
        component: Number and name of the component in question, or `order of proof`.
        text: What is measured.
        against: Row it is compared with; None = with none.
        has_component: Whether this row has the component that the other lacks; else the other has it. The difference is
            always what the component brings.
        kind: `head` = trained by the recipe; `baseline` = one of `BASELINES`; `probe` = metadata without the photo;
            `attention` = a difference of logits; `elsewhere` = the figure of another recipe.
        change: Settings that differ from the default's.
        parts: Parts of the model in the place of which a simple one stands (`ablation_parts.py`).
        standardized: Whether frozen features are standardised.
        by_city: Whether cities are held out instead of folds.
    """

    name: str
    component: str
    text: str
    against: str | None = DEFAULT
    has_component: bool = True
    kind: Literal["head", "baseline", "probe", "attention", "elsewhere"] = "head"
    change: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    standardized: bool = True
    by_city: bool = False


@dataclass(frozen=True)
class Switch:
    """A component that settings switch: the default's side is found by comparing, the row is the other side."""

    name: str
    component: str
    off: Mapping[str, Any]
    on: Mapping[str, Any]


def ablation_rows(settings: PretrainArguments, args: RoadworkTrainingArguments, num_views: int) -> list[AblationRow]:
    """Build every row for a default.

    Args:
        settings: The default's settings.
        args: How it is trained.
        num_views: Views of a photo.
    """
    weights = settings.loss_weights or RoadworkConfig().loss_weights
    proof = _order_of_proof(settings, weights, num_views)
    default = AblationRow(DEFAULT, "recipe", "the recipe as it is", against=None)
    switches = [switched(switch, settings, args) for switch in _switches(settings, weights, num_views)]
    others = [
        *_fixed_parts(),
        *_with_metadata(settings),
        *_with_masks(settings, weights),
        *_by_city(settings),
        *_elsewhere(),
    ]
    components = sorted([*switches, *others], key=lambda row: int(row.component.split()[0]))
    return [*proof, default, *components]


def chosen_rows(rows: Sequence[AblationRow], names: Sequence[str]) -> list[AblationRow]:
    """Choose rows by name, and with them the rows they are compared with; no names choose all.

    Raises:
        ValueError: If there is no such row; the nearest name is given.
    """
    by_name = {row.name: row for row in rows}
    wanted: set[str] = set()
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.3)
            raise ValueError(
                f"rows names {name!r}, which this recipe has no row for{f'; the nearest is {near[0]!r}' if near else ''}"
            )
        following: str | None = name
        while following is not None:
            wanted.add(following)
            following = by_name[following].against
    return [row for row in rows if not names or row.name in wanted]


def switched(switch: Switch, settings: PretrainArguments, args: RoadworkTrainingArguments) -> AblationRow:
    """Turn a component to the side that the default is not on."""
    found = {name: getattr(settings, name) if hasattr(settings, name) else getattr(args, name) for name in switch.off}
    turns_on = found == dict(switch.off)
    change, word = (switch.on, "with") if turns_on else (switch.off, "without")
    text = ", ".join(f"{name} {found[name]} -> {value}" for name, value in change.items() if found[name] != value)
    return AblationRow(f"{word}_{switch.name}", switch.component, text, has_component=turns_on, change=change)


def _order_of_proof(settings: PretrainArguments, weights: Mapping[str, float], num_views: int) -> list[AblationRow]:
    """Baselines, then the stack with one part more each time."""
    against = {"majority": None, PROBE: "majority", "knn": "majority", "logreg_global": "knn"}
    against |= {"logreg_mean_max": "logreg_global", "attention_pool": "logreg_mean_max"}
    texts = {
        "majority": "share of roadwork in train",
        PROBE: "gradient boosting on metadata and file properties, without the photo",
        "knn": "nearest rows by the global view",
        "logreg_global": "logistic regression on the global view",
        "logreg_mean_max": "logistic regression on mean and maximum of the views",
        "attention_pool": "gated attention pool over all tokens (ABMIL)",
    }
    rows = [
        AblationRow(name, PROOF, text, against[name], kind="baseline" if name in BASELINES else "probe")
        for name, text in texts.items()
    ]
    kept = settings.keep_views if settings.keep_views < num_views else min(KEPT, num_views)
    focal, consistency = weights["focal"], weights.get("consistency", CONSISTENCY)
    with_consistency = {"focal": focal, "consistency": consistency}
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("stack", "gated-attention stack", {"keep_views": num_views, "pyramid": False}),
        ("stack_pruning", f"the {kept} best views are kept", {"keep_views": kept}),
        ("stack_pyramid", "pyramid on the projected views", {"pyramid": True}),
        ("stack_consistency", "consistency of the wide views", {"loss_weights": with_consistency}),
        (
            "stack_weather",
            "weather from vision",
            {"loss_weights": with_consistency | {"weather": weights.get("weather", WEATHER)}},
        ),
    ]
    change: dict[str, Any] = {"loss_weights": {"focal": focal}}
    for name, text, more in steps:
        change = change | more
        rows.append(AblationRow(name, PROOF, f"{'+ ' * (name != 'stack')}{text}", rows[-1].name, change=change))
    return rows


def _switches(settings: PretrainArguments, weights: Mapping[str, float], num_views: int) -> list[Switch]:
    gps = settings.gps_sampling if settings.gps_sampling != "off" else "solved"
    kept = settings.keep_views if settings.keep_views < num_views else min(KEPT, num_views)
    keep_all = {"keep_views": settings.keep_views if settings.keep_views >= num_views else num_views}

    def term(name: str, weight: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings without and with a loss term; the default's own side is written as the default writes it."""
        given = settings.loss_weights
        rest = {key: value for key, value in weights.items() if key != name}
        sides = [rest, {**rest, name: weights.get(name, weight)}]
        sides[name in weights] = given
        return {"loss_weights": sides[0]}, {"loss_weights": sides[1]}

    (no_mask, mask), evident = term("mask", MASK), settings.mask_evidence
    backbone, attention, loss = "1 frozen backbone", "6 gated attention", "11 loss"
    views, training = "2 views", "15 training"
    figures = {"extra_evidence": settings.extra_evidence}
    evidence = Switch("extra_evidence", "18 masks", {"extra_evidence": None}, figures)
    depth = Switch("depth_view", views, {"depth_folder": None}, {"depth_folder": settings.depth_folder})
    return [
        Switch("mean_token", backbone, {"feature_pooling": "cls"}, {"feature_pooling": "cls_mean"}),
        Switch("class_token", backbone, {"feature_pooling": "mean"}, {"feature_pooling": "cls_mean"}),
        Switch("twelve_views", views, {"view_layout": "single"}, {"view_layout": "photo12"}),
        Switch("left_square", views, {"squares": ["center", "right"]}, {"squares": ["left", "right"]}),
        Switch("letterbox", views, {"global_fit": "squash"}, {"global_fit": "letterbox"}),
        *([] if settings.depth_folder is None else [depth]),
        Switch("pruning", "3 view pruning", keep_all, {"keep_views": kept}),
        Switch("evidence_tokens", "4 evidence pooling", {"evidence_grid": 0}, {"evidence_grid": 2}),
        Switch("evidence_queries", "4 evidence pooling", {"num_evidence_queries": 1}, {"num_evidence_queries": 4}),
        Switch("pyramid", "5 pyramid", {"pyramid": False}, {"pyramid": True}),
        Switch("attention_gate", attention, {"attention_gate": "none"}, {"attention_gate": "headwise"}),
        Switch("attention", attention, {"num_attention_layers": 0}, {"num_attention_layers": 4}),
        Switch("feed_forward", attention, {"feed_forward": False}, {"feed_forward": True}),
        Switch("view_positions", attention, {"view_positions": False}, {"view_positions": True}),
        Switch("metadata", "9 metadata", {"metadata_fields": []}, {"metadata_fields": ["auto"]}),
        Switch(
            "focal",
            loss,
            {"focal_gamma": 0.0, "label_smoothing": 0.0},
            {"focal_gamma": 2.0, "label_smoothing": 0.1},
        ),
        Switch("consistency", loss, *term("consistency", CONSISTENCY)),
        Switch("weather", loss, *term("weather", WEATHER)),
        Switch("mask_term", "18 masks", no_mask | {"mask_evidence": False}, mask | {"mask_evidence": evident}),
        *([] if settings.extra_evidence is None else [evidence]),
        Switch("gps_sampling", "13 GPS sampling", {"gps_sampling": "off"}, {"gps_sampling": gps}),
        Switch(
            "augmentation",
            "14 augmentation",
            {"augmentation": "none", "feature_draws": 0},
            {"augmentation": "light", "feature_draws": 4},
        ),
        Switch("mixup", "14 augmentation", {"mixup_alpha": 0.0}, {"mixup_alpha": 0.2}),
        Switch("ema", training, {"ema_decay": 0.0}, {"ema_decay": 0.99}),
        Switch("patience", training, {"early_stopping_patience": 0}, {"early_stopping_patience": 5}),
        Switch(
            "refined_loss",
            training,
            {"metric_for_best_model": "mcc", "greater_is_better": True},
            {"metric_for_best_model": "refined_loss", "greater_is_better": False},
        ),
    ]


def _fixed_parts() -> list[AblationRow]:
    """Parts that every model has and that are switched off here alone."""
    off: dict[str, Any] = {"has_component": False}
    return [
        AblationRow(
            "fast_attention", "7 fast attention", "largest difference of a logit", kind="attention", against=None
        ),
        AblationRow("without_view_fusion", "8 view fusion", "mean of the views", parts=("view_fusion",), **off),
        AblationRow("without_hidden_layer", "12 classifier", "one linear layer", parts=("classifier",), **off),
        AblationRow("without_standardising", "15 training", "features as they are", standardized=False, **off),
    ]


def _with_metadata(settings: PretrainArguments) -> list[AblationRow]:
    """The other way to fuse metadata, beside the row that reads metadata."""
    fields = settings.metadata_fields or ["auto"]
    against = DEFAULT if settings.metadata_fields else "with_metadata"
    turns_on = not settings.metadata_residual
    change = {"metadata_fields": fields, "metadata_residual": turns_on}
    text = "metadata corrects the embedding" if turns_on else "the fused vector replaces the embedding"
    name = f"{'with' if turns_on else 'without'}_metadata_residual"
    return [AblationRow(name, "10 vision + metadata", text, against, has_component=turns_on, change=change)]


def _with_masks(settings: PretrainArguments, weights: Mapping[str, float]) -> list[AblationRow]:
    """What the decoded masks show as evidence for the decision, beside the row that decodes them."""
    turns_on = not settings.mask_evidence
    against = DEFAULT if "mask" in weights else "with_mask_term"
    change: dict[str, Any] = {"mask_evidence": turns_on}
    if "mask" not in weights:
        change["loss_weights"] = {**weights, "mask": MASK}
    text = f"mask_evidence {settings.mask_evidence} -> {turns_on}"
    name = f"{'with' if turns_on else 'without'}_mask_evidence"
    return [AblationRow(name, "18 masks", text, against, has_component=turns_on, change=change)]


def _by_city(settings: PretrainArguments) -> list[AblationRow]:
    """GPS sampling where it has to help: towards the coordinates of a city that is held out."""
    component = "13 GPS sampling"
    sampled = settings.gps_sampling != "off"
    sides = {"with": settings.gps_sampling if sampled else "brackets", "without": "off"}
    base, other = ("with", "without") if sampled else ("without", "with")
    first = f"{base}_gps_sampling_by_city"
    return [
        AblationRow(
            f"{word}_gps_sampling_by_city",
            component,
            f"each city held out, gps_sampling {sides[word]}" + " towards its coordinates" * (word == "with"),
            against=None if word == base else first,
            has_component=word == "with",
            change={"gps_sampling": sides[word]},
            by_city=True,
        )
        for word in (base, other)
    ]


def _elsewhere() -> list[AblationRow]:
    components = {
        "adapters": "16 fold adapters",
        "ensemble": "17 ensemble",
        "masks": "18 masks",
        "tta": "19 test-time augmentation",
        "report": "20 error report",
    }
    return [
        AblationRow(name, component, "from that recipe's result", against=None, kind="elsewhere")
        for name, component in components.items()
    ]
