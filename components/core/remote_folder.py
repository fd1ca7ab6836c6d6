"""A folder on an fsspec file system, such as an object store: upload and download of its files.

An object is either complete or absent, but there is no transaction over several objects and no rename. To publish a
folder, upload its files first and then, with `write`, the one file that marks it as complete.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import KeraslineError, ParameterError, RemoteError, one_line

# Number of concurrent transfers. s3fs holds up to 2 parts of 50 MB in memory for each.
TRANSFERS = 4
S3_OPTIONS = {"max_concurrency": 2}
EXTRAS = {"s3": "s3", "s3a": "s3"}

# Error names used by object store libraries, matched by name so that no library must be imported.
NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "DefaultCredentialsError",
    "ProfileNotFound",
}
UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ClientConnectorError",
    "ServerDisconnectedError",
    "FSTimeoutError",
    "ProxyConnectionError",
    "HTTPClientError",
    "ServiceRequestError",
}


@dataclass(frozen=True)
class RemoteFile:
    """A file in a listing.

    Attributes:
        version: Changes whenever the file is written, such as S3's ETag. None if the store has none.
        modified: Time of the last write, in seconds since 1970. None if the listing omits it.
    """

    size: int
    version: str | None
    modified: float | None


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at an fsspec URL. The library of the file system reads keys and addresses from the environment.

    Each method raises a RemoteError if the file system cannot be reached or refuses the request. An instance can be
    pickled, used by several threads, and used after a fork.

    Args:
        url: such as `s3://bucket/prefix`.

    Raises:
        ParameterError: fsspec does not know the kind of URL, or its library is not installed.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))
        try:
            self._open()
        except ImportError as error:
            raise ParameterError(f"{self.url}: {_missing_library(self.url, error)}") from error
        except (ValueError, TypeError) as error:
            raise ParameterError(f"{self.url}: {one_line(error)}") from error

    def __str__(self) -> str:
        return self.url

    @property
    def files(self) -> Any:
        """The fsspec file system, cached per process."""
        return self._open()[0]

    @property
    def root(self) -> str:
        """The folder's path in the file system."""
        return self._open()[1].rstrip("/")

    def list_names(self, folder: str = "") -> list[str]:
        """Return the names directly in a subfolder; empty if it does not exist."""
        with self._remote_errors():
            try:
                found = self.files.ls(self._path(folder), detail=False)
            except FileNotFoundError as error:
                _raise_if_bucket_is_missing(error)
                return []
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in found]

    def list_files(self, folder: str = "", prefix: str = "") -> dict[str, RemoteFile]:
        """Return all files below a folder, recursively, whose relative names start with `prefix`.

        Takes one request per thousand files if the store itself filters, as S3 does.
        """
        with self._remote_errors():
            try:
                entries = self._find(self._path(folder), prefix)
            except FileNotFoundError as error:
                _raise_if_bucket_is_missing(error)
                return {}
        skip = len(self.root) + 1
        files = {path: entry for path, entry in entries.items() if entry.get("type") == "file"}
        return {path[skip:]: _file(entry) for path, entry in files.items() if not path.endswith("/")}

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        with self._remote_errors():
            try:
                return self.files.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def digest(self, name: str) -> str:
        """Return the hexadecimal SHA-256 of a file's content, in constant memory."""
        digest = hashlib.sha256()
        with self._remote_errors(), self.files.open(self._path(name), "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        return digest.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file."""
        with self._remote_errors():
            self._in_folder(name, lambda path: self.files.pipe_file(path, content))

    def upload(self, folder: Path, names: Iterable[str], to: str, *, resume: bool = False) -> dict[str, RemoteFile]:
        """Upload files of a local folder concurrently to a folder that has no other writer.

        Args:
            resume: whether this is a retry, which skips files that are already uploaded.

        Returns:
            The uploaded files as listed by the store, by name.

        Raises:
            RemoteError: an uploaded file is missing or has the wrong size.
        """
        sizes = {name: (folder / name).stat().st_size for name in names}
        existing = self.list_files(to) if resume else {}
        missing = [n for n, size in sizes.items() if f"{to}/{n}" not in existing or existing[f"{to}/{n}"].size != size]

        def put(name: str) -> None:
            self._in_folder(f"{to}/{name}", lambda path: self.files.put_file(str(folder / name), path))

        self._concurrently(put, missing)
        found = self.list_files(to) if missing else existing
        uploaded = {}
        for name, size in sizes.items():
            file = found.get(f"{to}/{name}")
            if file is None or file.size != size:
                state = "is missing" if file is None else f"has {file.size} bytes instead of {size}"
                raise RemoteError(f"{self}/{to}/{name} was uploaded and {state}")
            uploaded[name] = file
        return uploaded

    def download(self, targets: Mapping[str, Path]) -> None:
        """Download files, by name, to local paths, concurrently. The caller removes partial files after an error."""
        self._concurrently(lambda name: self.files.get_file(self._path(name), str(targets[name])), list(targets))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files. Missing files are ignored."""
        paths = [self._path(name) for name in names]
        patterns = [path for path in paths if set(path) & set("*?[")]  # to `rm`
        with self._remote_errors():
            for path in patterns:
                with contextlib.suppress(FileNotFoundError):
                    self.files.rm_file(path)
            with contextlib.suppress(FileNotFoundError):
                if len(patterns) < len(paths):
                    self.files.rm([path for path in paths if path not in patterns])

    def _concurrently(self, call: Callable[[str], None], names: list[str]) -> None:
        with self._remote_errors(), ThreadPoolExecutor(TRANSFERS, thread_name_prefix="remote") as pool:
            calls = [pool.submit(call, name) for name in names]
            try:
                for done in calls:
                    done.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _find(self, path: str, prefix: str) -> Mapping[str, Any]:
        if not prefix or set(_protocols(self.files)) & {"s3", "s3a", "gs", "gcs"}:
            return self.files.find(path, detail=True, **({"prefix": prefix} if prefix else {}))
        found: dict[str, Any] = {}
        for inner in self.files.ls(path, detail=False):
            if inner.rstrip("/").rsplit("/", 1)[-1].startswith(prefix):
                found |= self.files.find(inner, detail=True)
        return found

    def _in_folder(self, name: str, write: Callable[[str], Any]) -> None:
        """Write a file, after creating its folder where the file system has folders. A bucket is never created."""
        path = self._path(name)
        try:
            write(path)
        except FileNotFoundError:
            above = self.root.rpartition("/")[0]
            if not above or not self.files.exists(above):
                raise
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            write(path)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _open(self) -> tuple[Any, str]:
        import fsspec

        options = S3_OPTIONS if self.url.startswith(("s3://", "s3a://")) else {}
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)

    @contextlib.contextmanager
    def _remote_errors(self) -> Iterator[None]:
        """Convert the errors of any store to a RemoteError of one line."""
        try:
            yield
        except (KeraslineError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise RemoteError(f"{self}: {_reason(error)}") from error


def _raise_if_bucket_is_missing(error: FileNotFoundError) -> None:
    """Tell a missing bucket, which is an error, from a missing folder, which counts as empty. S3 reports which."""
    answer = getattr(error.__cause__, "response", None) or {}
    if answer.get("Error", {}).get("Code") == "NoSuchBucket":
        raise error


def _reason(error: Exception) -> str:
    kinds = {kind.__name__ for link in _causes(error) for kind in type(link).__mro__}
    if isinstance(error, FileNotFoundError):
        return f"no such bucket or folder ({one_line(error)})"
    if isinstance(error, PermissionError):
        return f"not permitted ({one_line(error)}); check the keys and what they are allowed to do there"
    if kinds & NO_CREDENTIALS:
        return f"no credentials ({one_line(error)}); the documentation of its library says where it looks for them"
    if kinds & UNREACHABLE or isinstance(error, (ConnectionError, TimeoutError)):
        return f"cannot be reached ({one_line(error)}); check the network and the address, then try again"
    return f"{type(error).__name__}: {one_line(error)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _missing_library(url: str, error: ImportError) -> str:
    scheme = url.partition("://")[0]
    if scheme in EXTRAS:
        return f"its library is not installed: pip install 'kerasline[{EXTRAS[scheme]}]'"
    return one_line(error)


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    """Convert an entry of a listing. fsspec leaves it to each store how it names the properties other than the size."""
    version = next((entry[key] for key in ("ETag", "etag", "content_md5") if entry.get(key)), None)
    modified: Any = next(
        (entry[key] for key in ("LastModified", "last_modified", "mtime", "updated", "created") if entry.get(key)), None
    )
    seconds = modified.timestamp() if hasattr(modified, "timestamp") else modified
    return RemoteFile(
        int(entry["size"] or 0),
        None if version is None else str(version).strip('"'),
        float(seconds) if isinstance(seconds, (int, float)) else None,
    )
