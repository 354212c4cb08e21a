"""Where the rows of an ablation are measured: photos, tokens, folds and a backbone, loaded once for all of them.

In comes a row, out go the logits of every photo by a model that never saw its group. `ablation.py` keeps them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from torch.nn.attention import restore_flash_attention_impl
from transformers import set_seed

from natix_roadwork.data.leak_audit import resolve_metadata_fields
from natix_roadwork.data.leak_probes import FieldFeatures, field_features, value_probabilities
from natix_roadwork.data.metadata import MetadataInputs, encode_metadata
from natix_roadwork.gps.coordinates import located
from natix_roadwork.gps.gate import SamplingPlan, plan_sampling
from natix_roadwork.model.fast_attention import fast_attention
from natix_roadwork.model.modeling_roadwork import RoadworkForImageClassification
from natix_roadwork.training.ablation_parts import switch_off
from natix_roadwork.training.ablation_rows import AblationRow
from natix_roadwork.training.ablation_settings import AblationArguments
from natix_roadwork.training.ablation_tokens import SlicedRows, TokenStore, with_cache
from natix_roadwork.training.arguments import PretrainArguments, RoadworkTrainingArguments
from natix_roadwork.training.baselines import score_baselines
from natix_roadwork.training.cross_fitting import CrossFold, city_folds, grouped_folds, head_on, train_head
from natix_roadwork.training.gps_inputs import gps_of
from natix_roadwork.training.metadata_inputs import metadata_inputs
from natix_roadwork.training.metric import LARGEST_MARGIN
from natix_roadwork.training.pretrain_inputs import PretrainInputs, load_splits
from natix_roadwork.training.pretrain_model import build_model, build_processor
from natix_roadwork.training.token_features import Features
from natix_roadwork.training.token_inputs import feature_folder, standardizer_rows


Logits = NDArray[np.float32]


class AblationBench:
    """Everything that rows share.

    Args:
        ablation: Folds and seeds.
        settings: The default recipe.
        args: How it trains.

    Raises:
        ValueError: If data or settings cannot be used.
    """

    def __init__(
        self, ablation: AblationArguments, settings: PretrainArguments, args: RoadworkTrainingArguments
    ) -> None:
        """Load rows and backbone; tokens are computed when the first row needs them."""
        if not settings.selection_share:
            raise ValueError("selection_share=0: an ablation has no dev split to choose epochs; set it to 0.15, say")
        if settings.darkest_share is not None:
            raise ValueError(f"darkest_share={settings.darkest_share!r}: an ablation trains on all rows; leave it out")
        self.ablation, self.settings, self.args = ablation, with_cache(settings), args
        self.loaded, splits = load_splits(self.settings, args)
        self.photos: Dataset = concatenate_datasets([splits[name] for name in ("train", "dev") if name in splits])
        self.labels = np.asarray(self.photos["label"][:], dtype=np.int64)
        self.groups = np.asarray(self.photos["group"][:], dtype=str)
        self.model, _ = build_model(self.settings, self.labels.tolist())
        self.model.to(args.device)
        self.tokens = TokenStore(self.photos, self.settings, args, self.model)
        self._fields: dict[tuple[str, ...], list[str]] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash over ids, labels and groups of all photos in their order."""
        columns = [self.photos["row_id"][:], self.labels.tolist(), self.groups.tolist()]
        return hashlib.sha256(json.dumps(columns).encode()).hexdigest()

    @cached_property
    def split_seed(self) -> int:
        """Seed of the folds."""
        return self.args.seed if self.settings.split_seed is None else self.settings.split_seed

    @cached_property
    def folds(self) -> list[CrossFold]:
        """Grouped stratified folds."""
        share = self.settings.selection_share
        return grouped_folds(self.labels, self.groups, self.ablation.num_folds, self.split_seed, share)

    @cached_property
    def cities(self) -> list[CrossFold]:
        """One fold a city."""
        share, cities = self.settings.selection_share, self.photos["city"][:]
        return city_folds(self.labels, self.groups, cities, self.split_seed, share)

    @cached_property
    def gps(self) -> NDArray[np.float64]:
        """Coordinates `(N, 2)` in degrees, NaN = missing."""
        return gps_of(self.photos)

    @cached_property
    def features(self) -> Features:
        """Clean tokens for the baselines."""
        return self.tokens.features()

    def folds_of(self, row: AblationRow) -> list[CrossFold]:
        """Return the folds by which a row is measured."""
        return self.cities if row.by_city else self.folds

    def settings_of(self, row: AblationRow, seed: int) -> tuple[PretrainArguments, RoadworkTrainingArguments]:
        """Return the settings of a row and of one of its trainings.

        Args:
            row: Whose changes are applied.
            seed: Number of the training, from 0.

        Raises:
            ValueError: If the changes do not fit together.
        """
        own = {name for name in row.change if hasattr(self.settings, name)}
        settings = dataclasses.replace(self.settings, **{name: row.change[name] for name in own})
        rest = {name: value for name, value in row.change.items() if name not in own}
        return settings, dataclasses.replace(self.args, seed=self.args.seed + seed, **rest)

    def fields_of(self, settings: PretrainArguments) -> list[str]:
        """Return the metadata fields that settings lead to; the leak audit decides once."""
        asked = tuple(settings.metadata_fields)
        if asked not in self._fields:
            allowed = settings.allow_leaking_fields
            choice = resolve_metadata_fields(asked, allowed, lambda: self.photos, seed=self.args.seed)
            self._fields[asked] = choice.fields
        return self._fields[asked]

    def why_not(self, row: AblationRow) -> str:
        """Say why a row cannot be measured on this data with this backbone; empty if it can."""
        settings, num_views = self.settings_of(row, 0)[0], self.model.config.num_views
        if row.kind in ("baseline", "elsewhere"):
            return ""
        one_token = self.settings.feature_pooling == "cls_mean" and self.tokens.num_pooled == 1
        if row.name.endswith(("mean_token", "class_token")) and one_token:
            return "the backbone has no class token: its pooled token is the mean already"
        if row.name.endswith("pruning") and num_views == 1:
            return "the recipe has one view"
        if "weather" in row.name and not self._knows_weather():
            return "no photo has one known weather"
        if self.tokens.lacks_masks(settings):
            return "no photo has a mask"
        if "metadata_fields" in row.change and row.change["metadata_fields"] and not self.fields_of(settings):
            return "no metadata field passes the leak audit"
        if "gps_sampling" in row.name and not located(self.gps).any():
            return "no photo has coordinates"
        if row.by_city:
            try:
                return "" if self.cities else "no city"
            except ValueError as error:
                return str(error)
        if self.ablation.skip_pixel_rows and not self.tokens.holds(settings):
            return "skip_pixel_rows is set, and its tokens need another pass over all photos"
        return ""

    def _knows_weather(self) -> bool:
        words = self.model.config.vocabularies
        found = encode_metadata({"weather": self.photos["weather"][:]}, (), words, weather_labels=True)
        return bool((found["weather_labels"] >= 0).any())

    def measure(self, row: AblationRow, seed: int, advance: Callable[[], None]) -> Logits:
        """Score every photo that the row's folds hold out.

        Args:
            row: What to measure.
            seed: Number of the training, from 0.
            advance: Called after each fold.

        Returns:
            Logits `(N, 2)`, NaN for photos that no fold holds out.
        """
        if row.kind == "probe":
            found = self._probe()
            for _ in self.folds:
                advance()
            return found
        logits = np.full((len(self.labels), 2), np.nan, dtype=np.float32)
        inputs = None if row.kind == "baseline" else self._inputs(row, seed)
        for fold in self.folds_of(row):
            if inputs is None:
                logits[fold.held_out] = self._baseline(row.name, fold, self.args.seed + seed)
            else:
                logits[fold.held_out] = self._head(row, seed, fold, inputs)
            advance()
        return logits

    def _baseline(self, name: str, fold: CrossFold, seed: int) -> Logits:
        train, selection, held_out = (self.features.subset(part) for part in fold.parts.values())
        scored = score_baselines(train, selection, {"held_out": held_out}, seed=seed, names=(name,))
        return logits_of(scored[name]["held_out"])

    def _probe(self) -> Logits:
        """What metadata and file properties say without the photo, fitted on all rows but the fold's."""
        fields = field_features(self.photos).values()
        everything = FieldFeatures(
            present=np.any([field.present for field in fields], axis=0),
            numbers=np.hstack([field.numbers for field in fields]),
            words=np.hstack([field.words for field in fields]),
        )
        folds = [(np.concatenate([fold.train, fold.selection]), fold.held_out) for fold in self.folds]
        seed = self.args.seed
        return logits_of(value_probabilities(everything, self.labels, folds, "gradient_boosting", seed))

    def _inputs(self, row: AblationRow, seed: int) -> SlicedRows:
        settings, args = self.settings_of(row, seed)
        return self.tokens.rows(settings, self._metadata(settings), args.seed)

    def _metadata(self, settings: PretrainArguments) -> MetadataInputs:
        config = self.model.config
        weights = settings.loss_weights or config.loss_weights
        fields, encoder = self.fields_of(settings), settings.text_encoder_id
        folder = feature_folder(settings)
        read = (fields, config.vocabularies, weights, encoder, self.args, folder, settings.extra_evidence)
        return metadata_inputs({"all": self.photos}, *read)

    def _head(self, row: AblationRow, seed: int, fold: CrossFold, inputs: SlicedRows) -> Logits:
        settings, args = self.settings_of(row, seed)
        subsets = {name: inputs.select(part) for name, part in fold.parts.items()}
        sampling = self.sampling(settings, fold, row.by_city)
        set_seed(args.seed)
        model = head_on(
            self.model,
            settings,
            subsets["train"].labels,
            self.fields_of(settings),
            None if sampling is None else sampling.weights,
        )
        switch_off(model, row.parts)
        if row.standardized:
            model.standardizer.fit(*subsets["train"].clean(standardizer_rows(len(fold.train), args.seed)))
        processor = build_processor(settings, model)
        return train_head(PretrainInputs(self.loaded, model, processor, subsets, {}, sampling=sampling), args)

    def sampling(self, settings: PretrainArguments, fold: CrossFold, by_city: bool) -> SamplingPlan | None:
        """Decide how a fold's train rows are drawn; None = every row once an epoch.

        The targets are the coordinates of the rows that choose the epoch. With a city held out they are that city's,
        coordinates without labels: a declared adaptation to it.
        """
        target = self.gps[fold.held_out if by_city else fold.selection]
        train = self.gps[fold.train]
        if settings.gps_sampling == "off" or not (located(train).any() and located(target).any()):
            return None
        return plan_sampling(train, target, settings, self.labels[fold.train], self.args.seed)

    def note(self, row: AblationRow) -> str:
        """Say what a reader of a row must know besides its figures."""
        settings = self.settings_of(row, 0)[0]
        if settings.gps_sampling == "off" or row.kind != "head":
            return ""
        plans = [self.sampling(settings, fold, row.by_city) for fold in self.folds_of(row)]
        weighted = sum(plan is not None and plan.weights is not None for plan in plans)
        rest = "" if weighted == len(plans) else "; in the others none are needed, or none can reach the wanted share"
        return f"weights in {weighted} of {len(plans)} folds{rest}"

    @torch.no_grad()
    def attention_difference(self, num_rows: int = 32) -> float:
        """Measure the largest difference of a logit between fast and plain attention, by an untrained default model."""
        inputs = self.tokens.rows(self.settings)
        batch = inputs.read(list(range(min(num_rows, len(inputs)))))
        given = {name: batch[name].to(self.args.device) for name in ("view_features", "view_mask")}
        set_seed(self.args.seed)
        model: RoadworkForImageClassification = head_on(self.model, self.settings, self.labels.tolist())
        model.standardizer.fit(batch["view_features"], batch["view_mask"])
        model = model.to(self.args.device).eval()
        plain = model(**given).logits
        try:
            with fast_attention():
                return float((model(**given).logits - plain).abs().max())
        finally:
            restore_flash_attention_impl()


def logits_of(probabilities: NDArray[np.float64]) -> Logits:
    """Turn probabilities of roadwork `(N,)` into logits `(N, 2)`, of which that of None is 0."""
    with np.errstate(divide="ignore"):
        margins = np.log(probabilities) - np.log1p(-probabilities)
    margins = np.clip(margins, -LARGEST_MARGIN, LARGEST_MARGIN)
    return np.stack([np.zeros_like(margins), margins], axis=1).astype(np.float32)


def fold_numbers(num_rows: int, folds: Sequence[CrossFold]) -> NDArray[np.int64]:
    """Return the number of the fold that holds out each row, `(N,)`; -1 = none does."""
    numbers = np.full(num_rows, -1, dtype=np.int64)
    for number, fold in enumerate(folds):
        numbers[fold.held_out] = number
    return numbers
