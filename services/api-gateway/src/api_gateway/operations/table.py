"""The one table of operations; faces and the test matrix are generated from it."""

from api_gateway.operations import access, images, inventory, work
from api_gateway.operations.operation import Operation

OPERATIONS: tuple[Operation, ...] = (
    *access.OPERATIONS,
    *inventory.OPERATIONS,
    *images.OPERATIONS,
    *work.OPERATIONS,
)

_BY_NAME = {operation.name: operation for operation in OPERATIONS}
assert len(_BY_NAME) == len(OPERATIONS), "two operations have one name"


def operation_named(name: str) -> Operation:
    return _BY_NAME[name]
