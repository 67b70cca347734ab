"""Placement by the largest free share."""

from cache_manager.policies.most_free import POLICY
from entrepot_plugin.ports import LeaseAsk, Placement, PoolLoad, Refusal

ASK = LeaseAsk(object_id="o", size_bytes=10, purpose="reuse")


def pool(pool_id, capacity, used, **more):
    return PoolLoad(
        pool_id=pool_id,
        scope="zone",
        capacity_bytes=capacity,
        used_bytes=used,
        streams=more.pop("streams", 0),
        in_flight_bytes=0,
        has_copy=False,
        **more,
    )


def test_the_largest_free_share_wins_not_the_largest_pool():
    placed = POLICY.place(ASK, [pool("big", 1000, 600), pool("small", 100, 10)])
    assert isinstance(placed, Placement)
    assert placed.pool_id == "small"


def test_equal_shares_go_to_the_pool_with_fewer_streams():
    placed = POLICY.place(ASK, [pool("a", 100, 0, streams=3), pool("b", 100, 0, streams=1)])
    assert placed.pool_id == "b"


def test_a_draining_or_full_pool_is_never_chosen_and_the_table_says_why():
    refused = POLICY.place(ASK, [pool("full", 100, 95), pool("drain", 100, 0, draining=True)])
    assert isinstance(refused, Refusal)
    assert dict(refused.table) == {"full": "5 bytes short", "drain": "draining"}
