"""What is written down about a checkpoint: plain data, with a checksum before it is looked at."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

import msgspec

from sage.kernel.checkpoint.errors import CheckpointDamagedError

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"SAGE-CHECKPOINT"

ChunkName = Annotated[str, msgspec.Meta(pattern=r"^(chk-[0-9]{1,18}/)?[0-9a-f]{32,64}\.chunk$")]
"""A relative path that cannot lead out of its directory."""


class Chunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of state in a file of its own.

    Attributes:
        name: Its path below the directory of the job, or below that of the savepoint.
        size: Its bytes.
        digest: Its checksum: BLAKE2b of 16 bytes, in hexadecimal.
    """

    name: ChunkName
    size: Annotated[int, msgspec.Meta(ge=0)]
    digest: str


class SubtaskState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state of one subtask.

    Attributes:
        task: The name of its task.
        number: Its number.
        chunks: The pieces, in the order in which they are to be read.
        ended: Whether it had ended: it is then not started again.
        details: What whoever reads the pieces needs to know of them; plain data.
    """

    task: str
    number: int
    chunks: tuple[Chunk, ...] = ()
    ended: bool = False
    details: dict[str, Any] = {}


class CheckpointMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A completed checkpoint or savepoint.

    Attributes:
        checkpoint_id: Its number; a later one is higher.
        job: The name under which the job's checkpoints are kept.
        created_ms: When it was completed, in milliseconds since the Unix epoch.
        subtasks: What each subtask held.
        kind: Whose it is: the engine's, or a savepoint of the user's.
        attempt: Of which attempt of the job.
        details: What a restore needs to know of the job (parallelism, operators); plain data.
    """

    checkpoint_id: Annotated[int, msgspec.Meta(ge=0)]
    job: str
    created_ms: int
    subtasks: tuple[SubtaskState, ...]
    kind: Literal["checkpoint", "savepoint"] = "checkpoint"
    attempt: int = 0
    details: dict[str, Any] = {}

    def chunks(self) -> list[Chunk]:
        """Return the pieces of all subtasks."""
        return [chunk for subtask in self.subtasks for chunk in subtask.chunks]


def digest_of(data: bytes) -> str:
    """Return the checksum that is kept beside `data`.

    Examples:
        >>> len(digest_of(b"state"))
        32
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def encode_metadata(metadata: CheckpointMetadata) -> bytes:
    """Return one line with format version and checksum, then JSON."""
    body = msgspec.json.format(msgspec.json.encode(metadata), indent=1)
    return b"%s %d %s\n%s" % (_MAGIC, FORMAT_VERSION, digest_of(body).encode(), body)


def decode_metadata(data: bytes, where: str) -> CheckpointMetadata:
    """Return what `encode_metadata` was given.

    Args:
        data: The content of the file.
        where: Its name, for the message.

    Raises:
        CheckpointDamagedError: the bytes are not the ones that were written, or of a format that
            this version of SAGE does not know.
    """
    head, _, body = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != _MAGIC:
        raise CheckpointDamagedError(f"{where} is not the metadata of a checkpoint, or is damaged")
    if words[1] != b"%d" % FORMAT_VERSION:
        version = words[1].decode(errors="replace")
        raise CheckpointDamagedError(
            f"{where} is of format {version}; this version of SAGE reads format {FORMAT_VERSION}"
        )
    if digest_of(body).encode() != words[2]:
        raise CheckpointDamagedError(f"{where} is damaged: its checksum does not fit")
    try:
        return msgspec.json.decode(body, type=CheckpointMetadata)
    except msgspec.MsgspecError as error:
        raise CheckpointDamagedError(f"{where} cannot be read: {error}") from error
