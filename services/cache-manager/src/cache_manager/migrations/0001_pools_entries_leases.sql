-- Cache pools, their entries and the leases on them.

CREATE TABLE pool (
    pool_id text PRIMARY KEY,
    name text NOT NULL UNIQUE,
    scope text NOT NULL,
    zone_id text NOT NULL,
    store jsonb NOT NULL,
    capacity_bytes bigint NOT NULL CHECK (capacity_bytes > 0),
    draining boolean NOT NULL DEFAULT false
);
CREATE INDEX pool_zone ON pool (zone_id);

CREATE TABLE entry (
    entry_id text PRIMARY KEY,
    pool_id text NOT NULL REFERENCES pool,
    zone_id text NOT NULL,
    live_key text UNIQUE,
    digest jsonb NOT NULL,
    format text NOT NULL,
    key text NOT NULL UNIQUE,
    state text NOT NULL,
    fill_epoch integer NOT NULL,
    filler text,
    uses integer NOT NULL,
    last_use_at timestamptz,
    reason text NOT NULL
);
CREATE INDEX entry_pool ON entry (pool_id);

CREATE TABLE lease (
    lease_id text PRIMARY KEY,
    entry_id text NOT NULL REFERENCES entry,
    holder text NOT NULL,
    purpose text NOT NULL,
    role text NOT NULL,
    expires_at timestamptz NOT NULL,
    released boolean NOT NULL DEFAULT false
);
CREATE INDEX lease_entry ON lease (entry_id) WHERE NOT released;
