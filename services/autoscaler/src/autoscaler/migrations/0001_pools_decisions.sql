-- Scaling pools and the decisions about them.

CREATE TABLE pool (
    pool_id text PRIMARY KEY,
    zone_id text NOT NULL UNIQUE,
    strategy text NOT NULL,
    mode text NOT NULL,
    vms_min integer NOT NULL,
    vms_max integer NOT NULL CHECK (vms_max >= vms_min),
    desired integer NOT NULL,
    ready integer NOT NULL,
    last_reason text NOT NULL,
    sampled_at timestamptz,
    state bytea NOT NULL
);

CREATE TABLE decision (
    decision_id text PRIMARY KEY,
    pool_id text NOT NULL REFERENCES pool,
    at timestamptz NOT NULL,
    strategy text NOT NULL,
    proposed integer NOT NULL,
    desired integer NOT NULL,
    clamps jsonb NOT NULL,
    reason text NOT NULL
);
CREATE INDEX decision_pool ON decision (pool_id, at);
