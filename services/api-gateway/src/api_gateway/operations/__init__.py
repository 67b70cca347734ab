"""What callers can ask for, each written once. Faces (REST today, CloudStack's query API next)
validate against `Operation.request`, run `Operation.run` and only differ in how they spell it.
"""

from api_gateway.operations.operation import Call, Operation
from api_gateway.operations.table import OPERATIONS, operation_named

__all__ = ["OPERATIONS", "Call", "Operation", "operation_named"]
