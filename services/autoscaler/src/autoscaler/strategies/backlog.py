"""`backlog`: enough VMs to drain the queued and running bytes by the time they are due.

A first, simple form of deadline demand: for every due time the bytes due by then divided by what
one VM moves until then; work without a due time counts as due in 30 minutes.
"""

from math import ceil

from entrepot_plugin.ports import PoolSnapshot, Proposal, ScaleStrategy

UNDATED_DUE_S = 1800.0
MARGIN = 0.75  # plan to be done in this share of the time left


class Backlog:
    name = "backlog"

    def decide(self, snapshot: PoolSnapshot, state: bytes) -> Proposal:
        dated = sorted(snapshot.due)
        undated = snapshot.queued_bytes + snapshot.remaining_bytes - sum(n for _, n in dated)
        demand, bytes_due = 0.0, 0
        for due_s, count in [*dated, (UNDATED_DUE_S, max(0, undated))]:
            bytes_due += count
            usable_s = max(MARGIN * due_s, 1.0)
            demand = max(demand, bytes_due / (snapshot.vm_rate_bps * usable_s))
        # Work of unknown size still needs somebody to do it.
        needed = ceil(demand) or int(bool(snapshot.unknown_n or snapshot.queued_n))
        desired = max(needed, snapshot.vms_min)
        reason = (
            f"{bytes_due} bytes due need {demand:.2f} VMs; {snapshot.unknown_n} of unknown size"
        )
        return Proposal(desired=desired, reason=reason, state=state)


STRATEGY: ScaleStrategy = Backlog()
