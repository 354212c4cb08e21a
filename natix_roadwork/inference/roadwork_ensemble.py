"""A published ensemble as one object: photos in, probabilities of roadwork out.

    from natix_roadwork.inference.roadwork_ensemble import RoadworkEnsemble

    ensemble = RoadworkEnsemble.from_pretrained("owner/repo")  # or a folder
    ensemble(["a.jpg", image, jpeg_bytes])  # (3,) probabilities

The repository or folder holds `ensemble.json` and the members' folders under `members/`, as `natix-roadwork publish`
leaves them. Members that read the same tokens of the same backbone share one run of it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray

from natix_roadwork.inference.ensemble import ENSEMBLE_NAME, Ensemble
from natix_roadwork.inference.member import Member, load_member
from natix_roadwork.inference.predict_rows import classify, model_inputs
from natix_roadwork.model.photo import PhotoSource


MEMBERS_FOLDER = "members"
ADAPTERS_FOLDER = "adapters"


class RoadworkEnsemble:
    """Members, and how their answers become one.

    Args:
        ensemble: How they are combined.
        members: By name; those of the ensemble, no others.

    Raises:
        ValueError: If a member is missing or unknown.
    """

    def __init__(self, ensemble: Ensemble, members: Mapping[str, Member]) -> None:
        if sorted(ensemble.members) != sorted(members):
            raise ValueError(
                f"members {sorted(members)} are not those of {ENSEMBLE_NAME}, {sorted(ensemble.members)}; give each of its own"
            )
        self.ensemble = ensemble
        self.members = {name: members[name] for name in ensemble.members}
        self._readers = _group_by_tokens(self.members)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Load a published ensemble.

        Args:
            name: Folder, or Hub id.
            revision: Branch, tag or commit of a Hub id.
            cache_dir: Where the Hub's files are cached.
            token: Hub token.
            local_files_only: Use the cache only.
            device: Where the members run.

        Raises:
            ValueError: If there is no such ensemble, or a member is missing or damaged.
        """
        folder = Path(name)
        if not folder.is_dir():
            options = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
            patterns = [ENSEMBLE_NAME, f"{MEMBERS_FOLDER}/*"]
            folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns, **options))
        ensemble, sources = Ensemble.load(folder / ENSEMBLE_NAME), {}
        for member in ensemble.members:
            own = folder / member_folder(member)
            if not own.is_dir():
                raise ValueError(f"{name} has no folder {member_folder(member)}, a member of its {ENSEMBLE_NAME}")
            adapters = own / ADAPTERS_FOLDER
            sources[member] = (str(own), str(adapters) if adapters.is_dir() else None)
        return cls.from_members(ensemble, sources, device)

    @classmethod
    def from_members(
        cls, ensemble: Ensemble, sources: Mapping[str, tuple[str, str | None]], device: torch.device | str = "cpu"
    ) -> Self:
        """Load members one after another, with one copy of each backbone in memory.

        Args:
            ensemble: How they are combined.
            sources: Folder of each member's model, and of its fold adapters or None, by the member's name.
            device: Where the members run.

        Raises:
            ValueError: As `load_member`, and if a member is missing or unknown.
        """
        members, backbones = {}, {}
        for name, (folder, adapters) in sources.items():
            member = load_member(folder, device, adapters)
            member.model.backbone = backbones.setdefault(member.model.backbone_hash(), member.model.backbone)
            members[name] = member
        return cls(ensemble, members)

    def __call__(self, photos: PhotoSource | Sequence[PhotoSource], batch_size: int = 8) -> NDArray[np.float64]:
        """Return the probability of roadwork of each photo, `(N,)` in [0, 1]; above 0.5 is Roadwork.

        Args:
            photos: A photo or a list of them: paths, bytes, PIL images or arrays.
            batch_size: Photos that run together.

        Raises:
            ValueError: If there is no photo, or one cannot be read.
        """
        return 0.5 * (1.0 + np.tanh(0.5 * self.ensemble.margins(self.logits(photos, batch_size))))

    @torch.inference_mode()
    def logits(self, photos: PhotoSource | Sequence[PhotoSource], batch_size: int = 8) -> NDArray[np.float64]:
        """Return the members' logits `(N, M, 2)`, in the order of the ensemble; arguments and errors as of a call."""
        listed = list(photos) if isinstance(photos, list | tuple) else [photos]
        if not listed or batch_size < 1:
            raise ValueError(f"{len(listed)} photos, batch_size={batch_size}: give at least one photo, and 1 or more")
        parts = [self._batch(listed[start : start + batch_size]) for start in range(0, len(listed), batch_size)]
        return np.concatenate(parts)

    @property
    def num_backbone_runs(self) -> int:
        """How often a backbone runs over a photo; fewer than members where some share their tokens."""
        return len(self._readers)

    def _batch(self, photos: list[PhotoSource]) -> NDArray[np.float64]:
        found = {}
        for names in self._readers:
            first = self.members[names[0]]
            views = dict(first.processor(photos, return_tensors="pt"))
            tokens = model_inputs(first.model, views, torch.float32)
            for name in names:
                found[name] = classify(self.members[name].answers, tokens)[0].double().cpu().numpy()
        return np.stack([found[name] for name in self.members], axis=1)


def member_folder(name: str) -> str:
    """Return the folder of a member in a published ensemble; a name such as `base/dora` lies one deeper.

    Raises:
        ValueError: If the name leads elsewhere.
    """
    if not name or any(part in ("", ".", "..", ADAPTERS_FOLDER) for part in name.split("/")) or "\\" in name:
        raise ValueError(f"member {name!r} of {ENSEMBLE_NAME} names no folder under {MEMBERS_FOLDER}/; rename it")
    return f"{MEMBERS_FOLDER}/{name}"


def _group_by_tokens(members: Mapping[str, Member]) -> list[list[str]]:
    """Put members together that read the same tokens; one that looks at a photo before it chooses views reads its own."""
    groups: dict[str, list[str]] = {}
    for name, member in members.items():
        config = member.model.config
        own = name if member.model.view_selector is not None else None
        reads = [config.feature_pooling, config.evidence_grid, config.has_mask_head, member.processor.settings(), own]
        groups.setdefault(json.dumps([member.model.backbone_hash(), *reads], sort_keys=True), []).append(name)
    return list(groups.values())
