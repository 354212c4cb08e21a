"""The check `natix-roadwork check`: would a stock miner of NATIX's subnet earn something with a model's folder?

In comes a folder; out goes a `CheckReport` of lines that pass, warn or fail. Files are looked at first; the model is loaded
and asked only where it needs no code of its own, and from safetensors alone.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import transformers

from natix_roadwork.hub.check_answers import check_answers
from natix_roadwork.hub.check_files import CONFIG, DISTILL, MODERN, STOCK, Profile, check_files, read_json
from natix_roadwork.hub.findings import Finding
from natix_roadwork.hub.model_card_json import MODEL_CARD_NAME, read, repo_id_problem, validate
from natix_roadwork.hub.probe_photos import probe_photos


MUST_HOLD = ("architecture", "remote code")  # else the folder is not loaded


@dataclass(frozen=True)
class CheckReport:
    """All findings about a folder.

    Attributes:
        folder: The folder.
        profile: `stock-4.45` = the miner that pins transformers 4.45.2, `modern` = one with a newer version.
        findings: Lines in the order they were looked at.
    """

    folder: str
    profile: Profile
    findings: tuple[Finding, ...]

    @property
    def scores(self) -> bool:
        """Whether a miner of the profile would score with the folder: no line fails."""
        return all(finding.status != "fail" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "folder": self.folder,
            "profile": self.profile,
            "scores": self.scores,
            "transformers": transformers.__version__,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def text(self) -> str:
        """Return the lines for a reader, what to do below each that does not pass."""
        width = max(len(finding.name) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.status:6}{finding.name:{width}}  {finding.found}")
            if finding.fix and finding.status != "pass":
                lines.append(f"{'':6}{'':{width}}  -> {finding.fix}")
        counts = {status: sum(found.status == status for found in self.findings) for status in ("fail", "warn")}
        verdict = "a stock miner would score with it" if self.scores else "a stock miner would not score with it"
        return "\n".join(
            [*lines, f"{self.folder}: {verdict} ({counts['fail']} fail, {counts['warn']} warn, {self.profile})"]
        )


def check_folder(
    folder: str | Path, profile: Profile = STOCK, photos: str | Path | None = None, repo_id: str | None = None
) -> CheckReport:
    """Check a model's folder.

    Args:
        folder: Folder of a saved model.
        profile: Which miner.
        photos: Folder of street photos to ask about; None = drawn scenes, noise, black and grey.
        repo_id: Name of the Hub repository it goes to; None = not checked.

    Raises:
        ValueError: If there is no photo in `photos`, or one cannot be read.
    """
    path = Path(folder)
    probes = probe_photos(photos)
    if read_json(path / CONFIG) is None:
        what = f"no {CONFIG} that can be read" if path.is_dir() else "there is no such folder"
        fix = f"give the folder of a saved model; for a trained full model, {DISTILL}"
        return CheckReport(str(folder), profile, (Finding("folder", "fail", what, fix),))
    findings = check_files(path, profile)
    stopped = [line.name for line in check_files(path, MODERN) if line.status == "fail" and line.name in MUST_HOLD]
    if stopped:
        findings.append(Finding("answers", "warn", f"the model was not asked: {', '.join(stopped)} above"))
    else:  # a model that only newer transformers know is tried too
        findings += check_answers(path, probes)
    findings += check_card(path, repo_id)
    return CheckReport(str(folder), profile, tuple(findings))


def check_card(folder: Path, repo_id: str | None = None) -> list[Finding]:
    """Check `model_card.json` and the repository's name by the rules that validators had."""
    name, path = MODEL_CARD_NAME, folder / MODEL_CARD_NAME
    findings = []
    if not path.is_file():
        found = "it is missing; the subnet's guide asks for it, though no validator code reads it since 2025-11-30"
        findings.append(Finding(name, "warn", found, "hub.model_card_json.write makes one"))
    else:
        try:
            problems = validate(read(path))
            findings += [Finding(name, "fail" if wrong.fatal else "warn", wrong.message) for wrong in problems]
        except ValueError as error:
            findings.append(Finding(name, "fail", str(error)))
        if not findings:
            findings.append(Finding(name, "pass", "every required key is there, the time is valid"))
    if repo_id is not None:
        wrong = repo_id_problem(repo_id)
        findings.append(Finding("repo id", "fail" if wrong else "pass", wrong or repo_id))
    return findings
