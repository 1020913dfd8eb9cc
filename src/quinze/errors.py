"""Every error that Quinze raises on purpose, drawn as a tree.

QuinzeError                        what went wrong, and what to do about it
├── InvalidRequestError            the request itself is wrong                        HTTP 400, exit 2
│   └── ContextLengthError         more tokens than the model or the budget holds
├── NotFoundError                  nothing of that name                               HTTP 404, exit 3
│   ├── ModelNotFoundError
│   ├── KnowledgeBaseNotFoundError
│   ├── DocumentNotFoundError
│   ├── JobNotFoundError
│   └── RunNotFoundError               a training run
├── ConflictError                  that name is taken, or in use                      HTTP 409, exit 4
├── TooLargeError                  over a limit that protects this machine            HTTP 413, exit 5
├── FileFormatError                a file is broken or not what it claims to be       HTTP 422, exit 5
│   ├── UnsupportedModelError      whole, but of a kind that the engine cannot run
│   ├── ChatTemplateError          a model's template failed or went over its limits
│   ├── CheckpointError            the saved state of a training run
│   └── DocumentError              a document that could not be read
│       ├── EncryptedDocumentError
│       ├── UnsupportedDocumentError
│       ├── EmptyDocumentError
│       ├── ReaderLimitError       it took too long or too much memory
│       └── ReadingCancelledError  it was stopped before its end; nothing is wrong with it
├── StorageError                   the disk, or a database on it, refused             HTTP 500, exit 6
├── BusyError                      try again in a moment                              HTTP 503, exit 7
├── HubError                       a model hub did not answer as it should            HTTP 502, exit 8
├── MissingPackageError            that part needs packages which are not installed   HTTP 501, exit 9
├── TrainingError                  a run that must not go on; what it learned is kept HTTP 422, exit 10
└── UpstreamError                  a server that runs a model did not answer well     HTTP 502, exit 11

The numbers stand on the classes, so that every face answers alike. Knows nothing of HTTP beyond them.
"""

from __future__ import annotations

from typing import ClassVar


class QuinzeError(Exception):
    """A mistake that a person can understand and mend.

    message  what went wrong, with the names and numbers involved
    hint     what to do about it; "" when there is nothing to do
    param    the field or option at fault, where there is one (OpenAI's `error.param`)
    """

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "quinze_error"

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class InvalidRequestError(QuinzeError):
    http_status, exit_code, code = 400, 2, "invalid_request"


class ContextLengthError(InvalidRequestError):
    code = "context_length_exceeded"


class NotFoundError(QuinzeError):
    http_status, exit_code, code = 404, 3, "not_found"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class KnowledgeBaseNotFoundError(NotFoundError):
    code = "knowledge_base_not_found"


class DocumentNotFoundError(NotFoundError):
    code = "document_not_found"


class JobNotFoundError(NotFoundError):
    code = "job_not_found"


class RunNotFoundError(NotFoundError):
    code = "run_not_found"


class ConflictError(QuinzeError):
    http_status, exit_code, code = 409, 4, "conflict"


class TooLargeError(QuinzeError):
    http_status, exit_code, code = 413, 5, "too_large"


class FileFormatError(QuinzeError):
    http_status, exit_code, code = 422, 5, "bad_file"


class UnsupportedModelError(FileFormatError):
    code = "unsupported_model"


class ChatTemplateError(FileFormatError):
    code = "bad_chat_template"


class CheckpointError(FileFormatError):
    code = "bad_checkpoint"


class DocumentError(FileFormatError):
    code = "unreadable_document"


class EncryptedDocumentError(DocumentError):
    code = "encrypted_document"


class UnsupportedDocumentError(DocumentError):
    code = "unsupported_document"


class EmptyDocumentError(DocumentError):
    code = "empty_document"


class ReaderLimitError(DocumentError):
    code = "reader_limit"


class ReadingCancelledError(DocumentError):
    code = "reading_cancelled"


class StorageError(QuinzeError):
    http_status, exit_code, code = 500, 6, "storage"


class BusyError(QuinzeError):
    """retry_after: seconds after which another attempt makes sense, where somebody said so."""

    http_status, exit_code, code = 503, 7, "busy"

    def __init__(
        self, message: str, *, hint: str = "", param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint, param=param)
        self.retry_after = retry_after


class HubError(QuinzeError):
    http_status, exit_code, code = 502, 8, "hub"


class MissingPackageError(QuinzeError):
    http_status, exit_code, code = 501, 9, "missing_package"


class TrainingError(QuinzeError):
    http_status, exit_code, code = 422, 10, "training_failed"


class UpstreamError(QuinzeError):
    http_status, exit_code, code = 502, 11, "upstream"
