"""Repositories of the Hugging Face Hub: a snapshot of a tokenizer or an encoder, and publishing a tokenizer.

``huggingface_hub`` does the work: its cache (``HF_HOME``), resuming, revisions and access tokens (``HF_TOKEN``, or
``hf auth login``), and another server in ``HF_ENDPOINT``. No code of a repository is ever run.
"""

import fnmatch
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from spintok._files import require
from spintok.hub.download import DownloadError, is_offline
from spintok.progress import Progress, no_progress

__all__ = ["Repository", "check_repository", "fetch_repository", "parse_repository", "upload_folder"]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FORM = re.compile(rf"({_PART}/{_PART})(?:@([^@\s]+))?")

_SMALL = ("config.json", "README.md", "preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files that hold no code before pickles, which are read without running theirs."""


class Repository(NamedTuple):
    """A repository on the Hub, ORG/NAME, and the branch, tag or commit to read; None is its main branch."""

    name: str
    revision: str | None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def parse_repository(source: str) -> Repository | None:
    """The repository that ``ORG/NAME`` or ``ORG/NAME@REVISION`` names; None for text of any other form."""
    match = _FORM.fullmatch(source)
    return None if match is None else Repository(match[1], match[2])


def check_repository(name: str, *, offline: bool | None = None) -> bool:
    """Whether only the cache may be read: by ``offline``, or SPINTOK_OFFLINE or HF_HUB_OFFLINE; else ask the Hub.

    Raises:
        DownloadError: the Hub has no such repository for this user, or does not answer.
    """
    hub = _hub(name)
    if hub.constants.HF_HUB_OFFLINE or (is_offline() if offline is None else offline):
        return True
    with _explained(Repository(name, None)):
        hub.HfApi().model_info(name)
    return False


def fetch_repository(repository: Repository, *, offline: bool | None = None, progress: Progress | None = None) -> Path:
    """The folder of the Hub's cache with the repository's configuration, model card and weights.

    Args:
        repository: which holds a tokenizer of spintok or a model of transformers.
        offline: read the cache only; by default SPINTOK_OFFLINE or HF_HUB_OFFLINE decides.
        progress: called with ``NAME/FILE`` and the file's bytes during a download.

    Raises:
        DownloadError: one line that says what is wrong with the repository, the network or the cache.
    """
    hub = _hub(str(repository))
    where = {"repo_id": repository.name, "revision": repository.revision, "library_name": "spintok"}
    offline = hub.constants.HF_HUB_OFFLINE or (is_offline() if offline is None else offline)
    with _explained(repository, offline=offline):
        if offline:
            # One file finds the folder; whether all others are there is seen when they are read.
            return Path(hub.snapshot_download(**where, allow_patterns=["config.json"], local_files_only=True))
        listed = hub.HfApi().model_info(repository.name, revision=repository.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in listed.siblings or ()}
        folders = set()
        for name in _wanted(repository, sizes):
            label, size = f"{repository.name}/{name}", sizes[name]
            path = hub.hf_hub_download(**where, filename=name, tqdm_class=_bar(progress or no_progress, label, size))
            folders.add(Path(path).parent)
    if len(folders) > 1:
        raise DownloadError(f"{repository}: changed while it was downloaded; run the command again")
    return folders.pop()


def upload_folder(folder: Path, repository: str, *, private: bool, message: str, revision: str | None = None) -> str:
    """Commit the files of a folder to a repository, which is made if there is none; the address of the commit.

    Raises:
        DownloadError: one line that says what the Hub refused and how to mend it.
    """
    parsed = parse_repository(repository)
    if parsed is None or parsed.revision is not None:
        raise ValueError(f"{repository!r}: a repository of the Hub is called ORG/NAME")
    hub = _hub(repository)
    with _explained(parsed):
        api = hub.HfApi(library_name="spintok")
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, revision=revision)
        return str(commit.commit_url)


def _wanted(repository: Repository, files: Collection[str]) -> list[str]:
    """The files to download: the weights in one form only."""
    if "config.json" not in files:
        raise DownloadError(
            f"{repository}: this repository has no config.json, so it holds neither a tokenizer of spintok nor a model "
            "of transformers; download single files of it by hand, and see `spintok import --help` for K-means"
        )
    for name in _WEIGHTS:
        if name in files:
            return [*(small for small in _SMALL if small in files), name]
        if f"{name}.index.json" in files:
            stem, _, suffix = name.rpartition(".")
            shards = sorted(fnmatch.filter(files, f"{stem}-?????-of-?????.{suffix}"))
            return [*(small for small in _SMALL if small in files), f"{name}.index.json", *shards]
    raise DownloadError(f"{repository}: this repository has a config.json but none of {' and '.join(_WEIGHTS)}")


def _bar(report: Progress, label: str, size: int) -> type:
    """A tqdm that shows nothing and reports the bytes."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})
            self.done = int(settings.get("initial") or 0)
            report(label, self.done, size)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            report(label, min(self.done, size), size)

    return Bar


@contextmanager
def _explained(repository: Repository, *, offline: bool = False) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one line."""
    hub = _hub(str(repository))
    errors, host = hub.errors, hub.constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError:
        raise DownloadError(
            f"{repository}: its authors ask for consent: accept their terms at {host}/{repository.name}, then log in "
            "with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(
            f"{repository}: there is no such folder here, and {host} has no such repository for you: check the name, "
            "and log in with `hf auth login` or set HF_TOKEN if it is private"
        ) from None
    except errors.RevisionNotFoundError:
        missing = repository.revision or "main"
        raise DownloadError(f"{repository}: the repository has no branch, tag or commit {missing!r}") from None
    except errors.HFValidationError as error:
        raise DownloadError(f"{repository}: not a name of the Hub: {_first_line(error)}") from None
    except (OSError, errors.HTTPError) as error:
        # LocalEntryNotFoundError too is a failed download, unless downloads are forbidden.
        if offline and isinstance(error, errors.LocalEntryNotFoundError):
            raise DownloadError(
                f"{repository}: not in the cache of the Hub, {hub.constants.HF_HUB_CACHE}, and --offline, "
                f"SPINTOK_OFFLINE or HF_HUB_OFFLINE forbids downloads; run `spintok download {repository}` where there "
                "is a network"
            ) from None
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
        raise DownloadError(
            f"{repository}: no such folder here, and {host} cannot be reached: {_first_line(cause or error)}. Check "
            "the network, or add --offline to read what an earlier download left in the cache"
        ) from None


def _hub(source: str) -> Any:
    purpose = f"{source}: there is no such folder, and to read it from the Hugging Face Hub"
    for module in ("constants", "errors"):
        require(f"huggingface_hub.{module}", extra="hub", purpose=purpose)
    return require("huggingface_hub", extra="hub", purpose=purpose)


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
