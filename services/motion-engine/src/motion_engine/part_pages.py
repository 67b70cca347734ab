"""How many part records one message carries: all parts of a large transfer are too many."""

from collections.abc import Sequence

from entrepot_contracts.motion import PartRecord

MESSAGE_BYTES_MAX = 512 << 10  # half of what a message bus carries by default
RECORD_BYTES = 256  # of a record beside its leaves


def first_page(
    parts: Sequence[PartRecord], room_bytes: int = MESSAGE_BYTES_MAX
) -> tuple[PartRecord, ...]:
    """As many of the first records as there is room for, at least one."""
    count = 0
    for record in parts:
        room_bytes -= len(record.leaves) * 4 // 3 + RECORD_BYTES
        if room_bytes < 0 and count:
            break
        count += 1
    return tuple(parts[:count])
