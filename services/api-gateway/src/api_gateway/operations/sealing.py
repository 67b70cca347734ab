"""Seals to the registry what callers say in confidence: it never rides NATS in the clear."""

from api_gateway.operations.operation import Call
from entrepot_contracts.registry import GetSealingKey, SealingKey
from entrepot_contracts.values import Sealed


async def seal_to_registry(call: Call, data: bytes) -> Sealed:
    # Asked every time: secrets are said rarely, and a remembered key outlives its registry.
    key = await call.ask(GetSealingKey(), SealingKey)
    return Sealed(recipient=key.public_key, box=call.desk.seal(key.public_key, data))
