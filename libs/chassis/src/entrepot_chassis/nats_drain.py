"""Ending a subscription so that nothing the server sent before it knew is lost."""

from nats.aio.client import Client
from nats.aio.subscription import Subscription


async def flushed(client: Client) -> None:
    """The server has read everything sent before. Two round trips: the client writes a flush's
    PING ahead of what its flusher task still holds, so only the second one comes after that.
    """
    await client.flush()
    await client.flush()


async def interest_ended(client: Client, subscription: Subscription) -> None:
    """The server sends no more; what it sent is in the subscription's queue.

    The client's own drain trusts one flush, forgets the subscription, and drops what arrives
    after that.
    """
    await client._send_unsubscribe(subscription._id)  # noqa: SLF001 - see above
    await flushed(client)


async def drained(client: Client, subscription: Subscription) -> None:
    """As `interest_ended`, and the callback has been given all of it."""
    await interest_ended(client, subscription)
    await subscription._pending_queue.join()  # noqa: SLF001
    await subscription.unsubscribe()
