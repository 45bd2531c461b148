"""Counts what an ONNX file would become in memory, before the package `onnx` parses it.

A file of some MB can hold a million operators, each of which is an object with names and lists: to
make them takes minutes and many times the memory of the file. Weights are bytes, and cost what
they weigh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.descriptor import (  # type: ignore[import-untyped]
    Descriptor,
    FieldDescriptor,
)
from onnx import ModelProto

from policies.bundle.onnx_reader import Wire, to_bytes
from sim.errors import UserError

# In messages of the file. Exporters write some 30 for each operator, with the place in the source
# that it comes from: 500 operators, and several times as many that are not needed.
MAX_FIELDS = 100_000
MAX_NUMBERS = 2**22  # in lists of whole numbers, which take eight bytes for each byte
MAX_DEPTH = 20  # of messages in messages
_WHOLE = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT64)


def check_size(data: bytes, where: str) -> None:
    """Refuse a file of more parts than a policy has, or with names that are no text.

    Args:
        data: content of the ONNX file.
        where: what it is called in an error.

    Raises:
        UserError: too many fields, numbers or levels, no protobuf, or no UTF-8.
    """
    count = _Count(where)
    try:
        count.message(memoryview(data), ModelProto.DESCRIPTOR, 0)  # type: ignore[arg-type]  # no copies
    except UserError:
        raise
    except (IndexError, ValueError) as error:
        raise UserError(
            f"{where}: not a readable ONNX file ({str(error)[:100]}); export the policy again"
        ) from None


class _Count:
    def __init__(self, where: str) -> None:
        self._where, self._wire, self._numbers = where, Wire(MAX_FIELDS + 1), 0
        self._fields = 0

    def message(self, data: bytes, kind: Descriptor, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise UserError(
                f"{self._where}: more than {MAX_DEPTH} levels of graphs in graphs; export the "
                "policy without branches"
            )
        known: dict[int, Any] = kind.fields_by_number
        for number, value in self._wire.fields(data):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise UserError(
                    f"{self._where}: its operators and their attributes have more than "
                    f"{MAX_FIELDS:,} fields; export the policy alone, as a simpler network"
                )
            field = known.get(number)
            if field is None or isinstance(value, int):
                continue
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                self.message(to_bytes(value), field.message_type, depth + 1)
            elif field.type == FieldDescriptor.TYPE_STRING:
                # The parser would hand on what is no text as bytes, and fail where it is written.
                bytes(to_bytes(value)).decode()
            elif field.type in _WHOLE:
                self._add(to_bytes(value))

    def _add(self, packed: bytes) -> None:
        """Count the numbers of a list: each ends with a byte below 128."""
        self._numbers += int((np.frombuffer(packed, np.uint8) < 0x80).sum())
        if self._numbers > MAX_NUMBERS:
            raise UserError(
                f"{self._where}: lists of more than {MAX_NUMBERS:,} whole numbers; export weights "
                "as raw data"
            )
