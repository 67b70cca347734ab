"""`fixed`: always the pool's minimum; for tests and for freezing a pool."""

from entrepot_plugin.ports import PoolSnapshot, Proposal, ScaleStrategy


class Fixed:
    name = "fixed"

    def decide(self, snapshot: PoolSnapshot, state: bytes) -> Proposal:
        return Proposal(
            desired=snapshot.vms_min, reason=f"fixed at {snapshot.vms_min}", state=state
        )


STRATEGY: ScaleStrategy = Fixed()
