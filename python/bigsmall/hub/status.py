"""Compressed models here and on the Hub."""

from pathlib import Path
from typing import Any

from .._core import packed_files
from ..errors import BigSmallError
from ..files import COMPRESSED_SUFFIX, StrPath
from ..model_files import INDEX
from .client import client, hub_errors


def on_hub(user: str | None, suffix: str, *, token: str | bool | None = None) -> list[dict[str, Any]]:
    """The repositories of a user, or of whoever the token belongs to, whose names end in a suffix.

    Each has `repo_id`, `n_shards`, `n_bytes` (of its `.bs` files), `has_readme`, `files` (sizes by name). Raises PermissionError without
    a user and a token, ConnectionError, OSError.
    """
    hub = client()
    api = hub.HfApi(token=token)
    with hub_errors(user or "the user of the token"):
        if user is None:
            user = _whoami(api)
        found = sorted(model.id for model in api.list_models(author=user) if model.id.endswith(suffix))
        return [_repository(api, hub, repo_id) for repo_id in found]


def _whoami(api: Any) -> str:
    try:
        return str(api.whoami()["name"])
    except client().errors.LocalTokenNotFoundError as error:
        raise PermissionError(13, "no user is named, and no token tells one") from error


def _repository(api: Any, hub: Any, repo_id: str) -> dict[str, Any]:
    files = {entry.path: entry.size for entry in api.list_repo_tree(repo_id, recursive=True) if isinstance(entry, hub.RepoFile)}
    shards = [name for name in files if name.endswith(COMPRESSED_SUFFIX)]
    return {
        "repo_id": repo_id,
        "n_shards": len(shards),
        "n_bytes": sum(files[name] for name in shards),
        "has_readme": "README.md" in files,
        "files": files,
    }


def here(folders: list[StrPath]) -> list[dict[str, Any]]:
    """The compressed models among folders and the folders in them.

    Each has `path`, `n_shards`, `n_bytes`, `files` (sizes by name), and `problem`: None, or what is wrong with its shards.
    """
    models = []
    for folder in map(Path, folders):
        for path in [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]:
            shards = sorted(path.glob(f"*{COMPRESSED_SUFFIX}"))
            if not shards and not (path / INDEX).exists():
                continue
            problem = None
            try:
                packed_files(path)
            except (BigSmallError, OSError) as error:
                problem = str(error)
            files = {shard.name: shard.stat().st_size for shard in shards}
            models.append({"path": str(path), "n_shards": len(shards), "n_bytes": sum(files.values()), "files": files, "problem": problem})
    return models


def compare(models: list[dict[str, Any]], repositories: list[dict[str, Any]], suffix: str) -> None:
    """Tell of each model which repository has its name, `repo_id`, and which shards that lacks or has in another size, `to_upload`."""
    by_name = {repository["repo_id"].rpartition("/")[2]: repository for repository in repositories}
    for model in models:
        name = Path(model["path"]).resolve().name
        repository = next((by_name[one] for one in (name, name + suffix, name.removesuffix("-bs") + suffix) if one in by_name), None)
        there = {} if repository is None else repository["files"]
        model["repo_id"] = None if repository is None else repository["repo_id"]
        model["to_upload"] = [file for file, n_bytes in model["files"].items() if there.get(file) != n_bytes]
