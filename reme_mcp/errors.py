"""What can go wrong, as a caller sees it.

    ReMeError            everything this package raises on purpose
    ├── InvalidInput     an argument is wrong; nothing was stored
    │   ├── NotFound     an id is unknown in this workspace
    │   └── Forbidden    the caller's token does not reach so far
    ├── ConfigError      a setting is unknown or has a bad value; the start stops
    ├── StoreError       the home folder can't be opened, read or written
    ├── ClientFileError  a client's own file can't be read, understood or written; it is as it was
    ├── EmbedderError    a model can't be loaded or can't embed; recall goes on without vectors
    ├── IdentityError    the identity provider can't be asked whose token it is
    └── EndpointError    an OpenAI-compatible server refused, failed or answered nonsense
        └── AnswerError  it works, but this one question got no answer that can be used

A message says what is wrong, which value, and what to do. This module imports nothing.
"""

from __future__ import annotations


class ReMeError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInput(ReMeError):
    """An argument is wrong. Nothing was stored; the message says which argument and what is allowed."""


class NotFound(InvalidInput):
    """An id names nothing in this workspace."""


class Forbidden(InvalidInput):
    """The caller's token does not allow it. It is said of what exists and of what does not alike."""


class ConfigError(ReMeError):
    """A setting is unknown or has a bad value. The message names its file, key, value and what is allowed."""


class StoreError(ReMeError):
    """The home folder can't be opened, read or written."""


class ClientFileError(ReMeError):
    """A client's own file can't be read, understood or written. It is as it was; the message names it."""


class EmbedderError(ReMeError):
    """An embedding model can't be loaded, or failed on a text."""


class IdentityError(ReMeError):
    """The identity provider can't be asked for its keys; its tokens can't be told from others until then."""


class EndpointError(ReMeError):
    """An OpenAI-compatible server could not be reached, refused, or answered in a shape that can't be used.

    Attributes:
        status: The HTTP status that the server refused with, if it was that.
        retry_after_s: Seconds before which it is no use to ask again, where that was said: by the server, or because
            the day's tokens are used up.
        is_permanent: It stays so until a person changes something: the key, the model's name, the account.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        is_permanent: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_permanent = is_permanent


class AnswerError(EndpointError):
    """The server works, but this question got no answer that can be used; another question may."""
