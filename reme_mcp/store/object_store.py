"""Small objects on object storage, each replaced only by who has seen it last. The only file that imports `obstore`.

In:  the address of a place there (`s3://bucket/path`, `gs://…`, `az://…`), names in it, bytes.
Out: the bytes again, and the version that a conditional write has to name.
Does not know: what is written.

Conditional writes are the one thing that S3, Google's and Azure's storage promise to whoever writes at the same time:
of two that name the same version, one is refused. Everything that replicas agree upon stands on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from anyio import to_thread

from reme_mcp.errors import StoreError

if TYPE_CHECKING:
    from obstore import PutResult, UpdateVersion
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

# A request that gets no answer is given up, rather than waited for while somebody else takes over.
TIMEOUT = timedelta(seconds=5)
RETRY_FOR = timedelta(seconds=10)
MAX_RETRIES = 3
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Version:
    """What tells two contents of one object apart, by the same or another name; S3 and Azure use the first."""

    e_tag: str | None
    version: str | None

    def as_dict(self) -> UpdateVersion:
        """Return it as `obstore` takes it, without what the storage does not use."""
        said: UpdateVersion = {}
        if self.e_tag is not None:
            said["e_tag"] = self.e_tag
        if self.version is not None:
            said["version"] = self.version
        return said


class Objects:
    """The objects under one address."""

    def __init__(self, address: str, options: Mapping[str, str]) -> None:
        """Make it; nothing is asked yet.

        Args:
            address: `scheme://bucket/path`.
            options: What the storage has to be told, in the words that LanceDB takes, too (`aws_region`); what the
                environment says (`AWS_…`, `GOOGLE_…`, `AZURE_…`) holds where they say nothing.
        """
        self.address = address
        self._options = options
        self._opened: ObjectStore | None = None

    async def read(self, name: str) -> tuple[bytes, Version] | None:
        """Return an object and its version, or `None` where there is none.

        Raises:
            StoreError: It can't be read.
        """
        return await to_thread.run_sync(self._read, name)

    async def create(self, name: str, content: bytes) -> Version | None:
        """Write an object that is not there yet, and return its version; `None` where it is there.

        Raises:
            StoreError: It can't be written.
        """
        return await to_thread.run_sync(self._put, name, content, None)

    async def replace(self, name: str, content: bytes, seen: Version) -> Version | None:
        """Replace what was seen of an object, and return the new version; `None` where it is not that any more.

        Raises:
            StoreError: It can't be written.
        """
        return await to_thread.run_sync(self._put, name, content, seen)

    async def names(self) -> set[str]:
        """Return the first part of the names of all objects here.

        Raises:
            StoreError: They can't be listed.
        """
        return await to_thread.run_sync(self._names)

    # All of it in threads of ours: one of obstore's own may be about to answer when the interpreter ends, and then the
    # process dies of it.

    def _read(self, name: str) -> tuple[bytes, Version] | None:
        import obstore

        with self._mapped("read", name):
            try:
                found = obstore.get(self._store(), name)
                content = bytes(found.bytes())
            except FileNotFoundError:
                return None
        return content, Version(found.meta["e_tag"], found.meta["version"])

    def _names(self) -> set[str]:
        import obstore

        with self._mapped("list", ""):
            listed = obstore.list_with_delimiter(self._store())
        paths = [*listed["common_prefixes"], *(one["path"] for one in listed["objects"])]
        return {path.split("/")[0] for path in paths}

    def _put(self, name: str, content: bytes, seen: Version | None) -> Version | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._mapped("write", name):
            try:
                put: PutResult
                if seen is None:
                    put = obstore.put(self._store(), name, content, mode="create")
                else:
                    put = obstore.put(self._store(), name, content, mode=seen.as_dict())
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:
                if seen is None:
                    # What is missing is the bucket.
                    raise
                return None
        return Version(put["e_tag"], put["version"])

    def _store(self) -> ObjectStore:
        if self._opened is None:
            from obstore.store import AzureStore, GCSStore, S3Store

            scheme, _, place = self.address.partition("://")
            bucket, _, path = place.partition("/")
            prefix = path or None
            client: ClientConfig = {"timeout": TIMEOUT, "allow_http": self._options.get("allow_http") == "true"}
            retry: RetryConfig = {"max_retries": MAX_RETRIES, "retry_timeout": RETRY_FOR}
            if scheme == "s3":
                said = cast("S3Config", {name: one for name, one in self._options.items() if name != "allow_http"})
                self._opened = S3Store(bucket, prefix=prefix, config=said, client_options=client, retry_config=retry)
            else:
                kind = GCSStore if scheme == "gs" else AzureStore
                self._opened = kind(bucket, prefix=prefix, client_options=client, retry_config=retry)
        return self._opened

    @contextmanager
    def _mapped(self, what: str, name: str) -> Iterator[None]:
        """Turn the storage's errors into a `StoreError` that says what could not be done."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as exc:
            place = f"{self.address}/{name}".rstrip("/")
            # After the first line come headers and pages of the server.
            reason = str(exc).splitlines()[0][:MAX_REASON_CHARS]
            raise StoreError(f"can't {what} {place}: {reason}; are address, rights and network all right?") from exc
