"""The ledger's SQL. Fragments are constants of this file; values are always parameters."""

# ruff: noqa: S608 - nothing but the constants below is ever put into a statement

_HELD = "state IN ('running', 'verifying')"
_CLAIMABLE = f"""
    NOT cancel_requested AND attempts < attempts_max AND strategy <> ''
    AND (state = 'queued' OR ({_HELD} AND lease_until < clock_timestamp()))
"""
_REACH = "needs <@ $1::text::jsonb AND ($2 OR zones <@ $3::text::jsonb)"
_NOT_FULL = "NOT store_ids ?| $5::text[] AND (zone_id IS NULL OR zone_id <> ALL ($6::text[]))"
_CANDIDATE = (
    "transfer_id, account_id, work_class, order_at, size_bytes, zone_id, "
    "store_ids::text AS store_ids"
)

# One round of claims at a time, whatever the number of engines.
LOCK_ROUND = "SELECT pg_advisory_xact_lock(hashtextextended('claims of ' || current_schema(), 0))"

LIVE_LEASES = f"""
SELECT account_id, zone_id, store_ids::text AS store_ids, mover_id
FROM transfer WHERE {_HELD} AND lease_until >= clock_timestamp()
"""

# `line` hops from account to account along the index, so the cost follows the number of accounts
# and not the length of the queue.
READY = f"""
WITH RECURSIVE line (class_rank, account_id) AS (
    (SELECT class_rank, account_id FROM transfer
     WHERE state = 'queued' AND strategy <> ''
     ORDER BY class_rank, account_id LIMIT 1)
    UNION ALL
    SELECT next.class_rank, next.account_id FROM line CROSS JOIN LATERAL (
        SELECT class_rank, account_id FROM transfer t
        WHERE state = 'queued' AND strategy <> ''
          AND (t.class_rank, t.account_id) > (line.class_rank, line.account_id)
        ORDER BY class_rank, account_id LIMIT 1) AS next
)
SELECT first.* FROM line CROSS JOIN LATERAL (
    SELECT {_CANDIDATE} FROM transfer t
    WHERE state = 'queued' AND strategy <> ''
      AND t.class_rank = line.class_rank AND t.account_id = line.account_id
      AND {_REACH} AND {_NOT_FULL}
    ORDER BY order_at, transfer_id LIMIT $7) AS first
WHERE line.account_id <> ALL ($4::text[])
UNION ALL
(SELECT {_CANDIDATE} FROM transfer
 WHERE {_HELD} AND lease_until < clock_timestamp()
   AND NOT cancel_requested AND attempts < attempts_max
   AND {_REACH} AND {_NOT_FULL} AND account_id <> ALL ($4::text[])
 ORDER BY order_at LIMIT 1000)
"""

CLAIM = f"""
WITH ready AS (
    SELECT transfer_id, state FROM transfer
    WHERE transfer_id = ANY ($1::text[]) AND {_CLAIMABLE}
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE transfer t
    SET state = 'running', version = t.version + 1, epoch = t.epoch + 1,
        attempts = t.attempts + 1, mover_id = $2, boot_id = $3, not_before = NULL,
        claimed_at = clock_timestamp(),
        lease_until = clock_timestamp() + make_interval(secs => $4::double precision)
    FROM ready WHERE t.transfer_id = ready.transfer_id
    RETURNING t.transfer_id, t.version, t.epoch, ready.state AS from_state
)
INSERT INTO transfer_history (transfer_id, n, epoch, from_state, to_state, why)
SELECT transfer_id, version, epoch, from_state, 'running', 'claimed by ' || $2::text FROM claimed
RETURNING transfer_id
"""

RENEW = f"""
UPDATE transfer SET lease_until = clock_timestamp() + make_interval(secs => $3::double precision)
WHERE transfer_id = $1 AND epoch = $2 AND {_HELD}
RETURNING cancel_requested
"""

SAVE = """
WITH saved AS (
    UPDATE transfer
    SET state = $4, version = version + 1, attempts = $5, strategy = $6, bids = $7::text::jsonb,
        legs = $8::text::jsonb, needs = $9::text::jsonb, zones = $10::text::jsonb, mover_id = $11,
        boot_id = $12, lease_until = $13, not_before = $14, cancel_requested = $15,
        finished_at = $16, result = $17::text::jsonb, problem = $18::text::jsonb
    WHERE transfer_id = $1 AND version = $2 AND epoch = $3
    RETURNING transfer_id, version, epoch, state
)
INSERT INTO transfer_history (transfer_id, n, epoch, from_state, to_state, why)
SELECT transfer_id, version, epoch, $19, state, $20 FROM saved
RETURNING n
"""

HOLD = f"""
SELECT upload_key, resume FROM transfer
WHERE transfer_id = $1 AND epoch = $2 AND {_HELD} FOR UPDATE
"""

OTHER_UPLOAD = "UPDATE transfer_part SET stale = true WHERE transfer_id = $1"

# In one statement all parts see the table as it was before: `old` holds what is recorded again.
PUT_PARTS = """
WITH fresh AS (
    SELECT * FROM unnest($3::int[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[])
        AS f (number, "offset", length, receipt, leaves)
), put AS (
    INSERT INTO transfer_part (transfer_id, number, "offset", length, receipt, leaves, epoch)
    SELECT $1, number, "offset", length, receipt, leaves, $2 FROM fresh
    ON CONFLICT (transfer_id, number) DO UPDATE
    SET "offset" = excluded."offset", length = excluded.length, receipt = excluded.receipt,
        leaves = excluded.leaves, epoch = excluded.epoch, stale = false
)
SELECT coalesce(sum(fresh.length), 0)::bigint
FROM fresh JOIN transfer_part old ON old.transfer_id = $1 AND old.number = fresh.number
WHERE (old.epoch, old."offset", old.length, old.receipt, old.leaves)
    IS DISTINCT FROM ($2::bigint, fresh."offset", fresh.length, fresh.receipt, fresh.leaves)
"""

PROGRESS = """
UPDATE transfer
SET upload_key = $2, resume = $3, bytes_done = $5,
    facts = CASE WHEN $8 THEN '{}' ELSE facts END || $4::text::jsonb,
    bytes_total = coalesce($6, bytes_total), bytes_resent = bytes_resent + $7,
    parts_done = (SELECT count(*) FROM transfer_part p
                  WHERE p.transfer_id = $1 AND NOT p.stale)
WHERE transfer_id = $1
"""

PARTS = """
SELECT transfer_id, number, "offset", length, receipt, leaves FROM transfer_part
WHERE transfer_id = ANY ($1::text[]) AND NOT stale ORDER BY transfer_id, number
"""

STORY = """
SELECT at, epoch, from_state, to_state, why FROM transfer_history
WHERE transfer_id = $1 ORDER BY n
"""

DUE = f"""
(SELECT transfer_id FROM transfer
 WHERE state = 'retry_wait' AND not_before <= clock_timestamp() ORDER BY not_before LIMIT $1)
UNION ALL
(SELECT transfer_id FROM transfer
 WHERE {_HELD} AND lease_until < clock_timestamp()
   AND (attempts >= attempts_max OR cancel_requested) LIMIT $1)
"""

LOAD = f"""
SELECT zone_id, work_class, {_HELD} AS held,
       power(2, least(greatest(ceil(log(2, greatest(
           extract(epoch FROM order_at - clock_timestamp()), 1)::numeric)), 0), 23))::float8
           AS due_in_s,
       count(*) AS count,
       coalesce(sum(greatest(coalesce(size_bytes, bytes_total) - bytes_done, 0)), 0)::bigint
           AS remaining_bytes,
       count(*) FILTER (WHERE size_bytes IS NULL AND bytes_total IS NULL) AS unknown_n,
       greatest(max(extract(epoch FROM clock_timestamp() - created_at)), 0)::float8
           AS oldest_wait_s
FROM transfer WHERE state IN ('queued', 'running', 'verifying', 'retry_wait')
GROUP BY 1, 2, 3, 4
"""
