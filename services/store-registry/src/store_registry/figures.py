"""What this service counts (alerts on them are in the README)."""

from entrepot_chassis import metrics

FINISHED = metrics.counter(
    "entrepot_registry_jobs_finished_total", "Jobs that ended", ["kind", "state"]
)
SPOILED = metrics.counter(
    "entrepot_registry_cleanups_failed_total",
    "Cleanup or best-effort transfers that failed: bytes may have stayed behind",
    ["kind"],
)
RUNG = metrics.counter(
    "entrepot_registry_sagas_rung_total", "Sagas asked again for lack of an answer", ["kind"]
)
ORPHANED = metrics.counter(
    "entrepot_registry_outcomes_unknown_total", "Transfer outcomes that belong to no job here"
)
