"""Where a publishing goes: a repository of the Hub, or a local folder that holds the same files.

Both are asked for what they hold, changed in one step, and named for loading. The token is read from HF_TOKEN, handed to
huggingface_hub, and taken out of every message.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from natix_roadwork.hub.cards import SUBNET_CARD_NAME
from natix_roadwork.hub.publish_files import CALIBRATION_NAME, MODEL_FILES, OWN_FOLDERS, file_hashes, refuse_pickles
from natix_roadwork.inference.ensemble import ENSEMBLE_NAME
from natix_roadwork.runs import REMOVED, RESULT_NAME


TOKEN_VARIABLE = "HF_TOKEN"


class HubTarget:
    """A model repository; made where there is none.

    Args:
        repo_id: `owner/name`.
        private: Whether a new one is private.

    Raises:
        ValueError: If there is no token, the Hub refuses, or the repository holds pickles.
    """

    def __init__(self, repo_id: str, private: bool) -> None:
        token = os.environ.get(TOKEN_VARIABLE)
        if not token:
            raise ValueError(
                f"repo_id={repo_id!r} needs a token that may write there: set {TOKEN_VARIABLE} in the environment"
            )
        self.name, self._api = repo_id, HfApi(token=token)
        with _hub_errors(repo_id):
            self._api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
            info = self._api.model_info(repo_id)
        self.revision = info.sha
        self.files = [file.rfilename for file in info.siblings or []]
        refuse_pickles(self.files, repo_id)

    def read(self, name: str) -> str:
        """Return a text file as it is there now; an absent one is empty."""
        if name not in self.files:
            return ""
        with _hub_errors(self.name), tempfile.TemporaryDirectory() as cache:
            path = self._api.hf_hub_download(self.name, name, revision=self.revision, cache_dir=cache)
            return Path(path).read_text(encoding="utf-8")

    def push(self, staged: Path, message: str) -> str:
        """Bring the repository to the staged files in one commit; returns its id.

        Files of an earlier publishing that are no longer part of it go; those of other kinds stay. A commit of someone
        else since this target was opened is not overwritten: the Hub refuses.

        Raises:
            ValueError: If the Hub refuses.
        """
        new = file_hashes(staged)
        operations = [CommitOperationAdd(name, staged / name) for name in new]
        gone = [name for name in self.files if name not in new and _is_ours(name)]
        with _hub_errors(self.name):
            commit = self._api.create_commit(
                self.name,
                [*operations, *(CommitOperationDelete(name) for name in gone)],
                commit_message=message,
                parent_commit=self.revision,
            )
        self.revision, self.files = commit.oid, sorted(new)
        return commit.oid


class FolderTarget:
    """A local folder, replaced as a whole.

    Args:
        folder: Absent, empty, or published by us before.

    Raises:
        ValueError: If it holds something else.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).resolve()
        self._kept = self._folder.with_name(f".{self._folder.name}.kept")
        if self._kept.is_dir() and not self._folder.is_dir():  # killed between two renames
            os.replace(self._kept, self._folder)
        self.name, self.revision = str(self._folder), None
        self.files = list(file_hashes(self._folder)) if self._folder.is_dir() else []
        refuse_pickles(self.files, folder)
        if self.files and not {RESULT_NAME, "README.md", "config.json"} <= set(self.files):
            raise ValueError(
                f"folder={folder!r} holds {self.files[0]} and is nothing that was published before; choose another"
            )

    def read(self, name: str) -> str:
        """Return a text file as it is there now; an absent one is empty."""
        return (self._folder / name).read_text(encoding="utf-8") if name in self.files else ""

    def push(self, staged: Path, message: str) -> None:
        """Bring the folder to the staged files; at any moment it is whole, old or new, or `.NAME.kept` is."""
        partial = self._folder.with_name(f".{self._folder.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(staged, partial)
        shutil.rmtree(self._kept, ignore_errors=True)
        if self._folder.is_dir():
            os.replace(self._folder, self._kept)
        os.replace(partial, self._folder)
        shutil.rmtree(self._kept, ignore_errors=True)
        self.files = list(file_hashes(self._folder))


Target = HubTarget | FolderTarget


def without_token(text: str) -> str:
    """Take the token out of a text."""
    token = os.environ.get(TOKEN_VARIABLE)
    return text.replace(token, REMOVED) if token else text


def _is_ours(name: str) -> bool:
    """Whether publishing writes files of this name."""
    known = (*MODEL_FILES, ENSEMBLE_NAME, CALIBRATION_NAME, SUBNET_CARD_NAME)
    in_root = "/" not in name and any(fnmatch(name, pattern) for pattern in known)
    return in_root or name.startswith(tuple(f"{folder}/" for folder in OWN_FOLDERS))


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what goes wrong with the Hub into one line without the token."""
    try:
        yield
    except ValueError:
        raise
    except (
        Exception
    ) as error:  # besides its own, huggingface_hub raises errors of its HTTP client, another one by version
        status = f"status {error.response.status_code}, " if isinstance(error, HfHubHTTPError) else ""
        said = without_token(" ".join(str(error).split()))[:400]
        # `from None`: the chain would carry the request and its headers into a traceback.
        raise ValueError(
            f"repo_id={repo_id!r}: the Hub did not take it ({status}{said}); nothing was published. Check {TOKEN_VARIABLE} "
            "and the owner, then run it again"
        ) from None
