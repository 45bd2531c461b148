"""The content of a bag's files, whatever their kind: channels and messages."""

from __future__ import annotations

from dataclasses import dataclass

from mcap.records import Attachment, Metadata


@dataclass(frozen=True)
class Topic:
    """A channel: the source of messages of one type."""

    name: str  # as it was recorded
    relative_name: str  # relative name, by recorder_node; empty: unknown
    type: str
    encoding: str  # of its messages
    schema: str  # encoding of the definition; empty: there is none
    definition: bytes


@dataclass(frozen=True)
class Stored:
    """A message as stored in the file."""

    topic: Topic
    received: int  # ns since 1970, by the recorder's clock
    data: bytes


Record = Stored | Metadata | Attachment
