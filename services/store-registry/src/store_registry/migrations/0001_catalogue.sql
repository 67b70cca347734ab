-- The catalogue: inventory, what tenants own, where each verified copy is, jobs

CREATE TABLE zone (
    zone_id    text PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    region     text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE provider (
    name          text PRIMARY KEY,
    version       text NOT NULL,
    roles         jsonb NOT NULL,
    scopes        jsonb NOT NULL,
    traits        jsonb NOT NULL,
    config_schema jsonb NOT NULL,
    seen_at       timestamptz NOT NULL
);

CREATE TABLE image_store (
    store_id       text PRIMARY KEY,
    account_id     text NOT NULL,
    name           text NOT NULL,
    provider       text NOT NULL,
    scope          text NOT NULL CHECK (scope IN ('region', 'zone')),
    zone_id        text REFERENCES zone,
    region         text NOT NULL,
    state          text NOT NULL
                   CHECK (state IN ('probing', 'up', 'degraded', 'refused', 'removed')),
    config         jsonb NOT NULL,
    place          text NOT NULL,
    read_only      boolean NOT NULL,
    created_at     timestamptz NOT NULL,
    capacity_bytes bigint CHECK (capacity_bytes >= 0),
    used_bytes     bigint NOT NULL CHECK (used_bytes >= 0),
    report         jsonb,
    job_id         text,
    CHECK ((scope = 'zone') = (zone_id IS NOT NULL))
);
CREATE UNIQUE INDEX image_store_name ON image_store (name)
    WHERE state IN ('probing', 'up', 'degraded');
CREATE UNIQUE INDEX image_store_place ON image_store (place)
    WHERE state IN ('probing', 'up', 'degraded');

CREATE TABLE storage_pool (
    store_id       text PRIMARY KEY,
    account_id     text NOT NULL,
    name           text NOT NULL,
    provider       text NOT NULL,
    scope          text NOT NULL CHECK (scope = 'zone'),
    zone_id        text NOT NULL REFERENCES zone,
    region         text NOT NULL,
    state          text NOT NULL
                   CHECK (state IN ('probing', 'up', 'degraded', 'refused', 'removed')),
    config         jsonb NOT NULL,
    place          text NOT NULL,
    read_only      boolean NOT NULL,
    created_at     timestamptz NOT NULL,
    capacity_bytes bigint CHECK (capacity_bytes >= 0),
    used_bytes     bigint NOT NULL CHECK (used_bytes >= 0),
    report         jsonb,
    job_id         text
);
CREATE UNIQUE INDEX storage_pool_name ON storage_pool (name)
    WHERE state IN ('probing', 'up', 'degraded');
CREATE UNIQUE INDEX storage_pool_place ON storage_pool (place)
    WHERE state IN ('probing', 'up', 'degraded');

-- Secret config fields only, AES-256-GCM sealed; the open ones are in `config` of the store.
CREATE TABLE image_store_details (
    detail_id text PRIMARY KEY,
    store_id  text NOT NULL REFERENCES image_store,
    name      text NOT NULL,
    sealed    bytea NOT NULL
);
CREATE INDEX image_store_details_store ON image_store_details (store_id);

CREATE TABLE storage_pool_details (
    detail_id text PRIMARY KEY,
    store_id  text NOT NULL REFERENCES storage_pool,
    name      text NOT NULL,
    sealed    bytea NOT NULL
);
CREATE INDEX storage_pool_details_store ON storage_pool_details (store_id);

CREATE TABLE template (
    template_id        text PRIMARY KEY,
    account_id         text NOT NULL,
    name               text NOT NULL,
    url                text NOT NULL,
    format             text NOT NULL CHECK (format IN ('qcow2', 'raw', 'iso')),
    scope              text NOT NULL CHECK (scope IN ('region', 'zone')),
    public             boolean NOT NULL,
    state              text NOT NULL
                       CHECK (state IN ('creating', 'ready', 'failed', 'deleting', 'deleted')),
    created_at         timestamptz NOT NULL,
    size_bytes         bigint,
    virtual_size_bytes bigint,
    checksum           jsonb,
    error              jsonb,
    job_id             text
);
-- Not partial: a prepared statement could not prove that its parameters imply the condition.
CREATE INDEX template_by_account ON template (account_id, template_id);
CREATE INDEX template_by_public ON template (public, template_id);

CREATE TABLE volume (
    volume_id      text PRIMARY KEY,
    account_id     text NOT NULL,
    name           text NOT NULL,
    zone_id        text NOT NULL REFERENCES zone,
    store_id       text NOT NULL REFERENCES storage_pool,
    format         text NOT NULL CHECK (format IN ('qcow2', 'raw')),
    size_bytes     bigint NOT NULL CHECK (size_bytes >= 0),
    reserved_bytes bigint NOT NULL CHECK (reserved_bytes >= 0),
    state          text NOT NULL
                   CHECK (state IN ('creating', 'ready', 'failed', 'deleting', 'deleted')),
    created_at     timestamptz NOT NULL,
    path           text,
    digest_root    text,
    epoch          bigint NOT NULL,
    template_id    text,
    snapshot_id    text,
    error          jsonb,
    job_id         text
);
CREATE INDEX volume_by_account ON volume (account_id, volume_id);
CREATE INDEX volume_by_store ON volume (store_id, state);

CREATE TABLE snapshot (
    snapshot_id text PRIMARY KEY,
    account_id  text NOT NULL,
    name        text NOT NULL,
    volume_id   text NOT NULL REFERENCES volume,
    zone_id     text NOT NULL REFERENCES zone,
    pool_id     text NOT NULL REFERENCES storage_pool,
    format      text NOT NULL CHECK (format IN ('qcow2', 'raw')),
    size_bytes  bigint NOT NULL CHECK (size_bytes >= 0),
    state       text NOT NULL
                CHECK (state IN ('creating', 'ready', 'failed', 'deleting', 'deleted')),
    created_at  timestamptz NOT NULL,
    pinned      boolean NOT NULL,
    digest_root text,
    error       jsonb,
    job_id      text
);
CREATE INDEX snapshot_by_account ON snapshot (account_id, snapshot_id);
CREATE INDEX snapshot_by_pin ON snapshot (pool_id, pinned);

-- Names of states as in the CloudStack design; a copy that is Ready names its object and digest.
CREATE TABLE template_store_ref (
    ref_id              text PRIMARY KEY,
    template_id         text NOT NULL REFERENCES template,
    store_id            text NOT NULL REFERENCES image_store,
    zone_id             text,
    state               text NOT NULL CHECK (state IN
                        ('Allocated', 'Creating', 'Ready', 'Failed', 'Destroying', 'Destroyed')),
    prefix              text NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    stored              jsonb,
    digest_root         text,
    checksum            jsonb,
    size_bytes          bigint,
    physical_size_bytes bigint NOT NULL CHECK (physical_size_bytes >= 0),
    epoch               bigint NOT NULL,
    transfer_id         text,
    job_id              text,
    error               jsonb,
    UNIQUE (template_id, store_id),
    CHECK (state <> 'Ready' OR (stored IS NOT NULL AND digest_root IS NOT NULL AND epoch > 0))
);
CREATE INDEX template_store_ref_store ON template_store_ref (store_id, state);

CREATE TABLE snapshot_store_ref (
    ref_id              text PRIMARY KEY,
    snapshot_id         text NOT NULL REFERENCES snapshot,
    store_id            text NOT NULL REFERENCES image_store,
    zone_id             text,
    state               text NOT NULL CHECK (state IN
                        ('Allocated', 'Creating', 'Ready', 'Failed', 'Destroying', 'Destroyed')),
    prefix              text NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    stored              jsonb,
    digest_root         text,
    checksum            jsonb,
    size_bytes          bigint,
    physical_size_bytes bigint NOT NULL CHECK (physical_size_bytes >= 0),
    epoch               bigint NOT NULL,
    transfer_id         text,
    job_id              text,
    error               jsonb,
    UNIQUE (snapshot_id, store_id),
    CHECK (state <> 'Ready' OR (stored IS NOT NULL AND digest_root IS NOT NULL AND epoch > 0))
);
CREATE INDEX snapshot_store_ref_store ON snapshot_store_ref (store_id, state);

-- Volumes lying on image stores (uploaded ones, with a later issue).
CREATE TABLE volume_store_ref (
    ref_id              text PRIMARY KEY,
    volume_id           text NOT NULL REFERENCES volume,
    store_id            text NOT NULL REFERENCES image_store,
    zone_id             text,
    state               text NOT NULL CHECK (state IN
                        ('Allocated', 'Creating', 'Ready', 'Failed', 'Destroying', 'Destroyed')),
    prefix              text NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    stored              jsonb,
    digest_root         text,
    checksum            jsonb,
    size_bytes          bigint,
    physical_size_bytes bigint NOT NULL CHECK (physical_size_bytes >= 0),
    epoch               bigint NOT NULL,
    transfer_id         text,
    job_id              text,
    error               jsonb,
    UNIQUE (volume_id, store_id),
    CHECK (state <> 'Ready' OR (stored IS NOT NULL AND digest_root IS NOT NULL AND epoch > 0))
);
CREATE INDEX volume_store_ref_store ON volume_store_ref (store_id, state);

CREATE TABLE job (
    job_id         text PRIMARY KEY,
    account_id     text NOT NULL,
    kind           text NOT NULL,
    resource_id    text NOT NULL,
    request_digest text NOT NULL,
    state          text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    saga           jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    finished_at    timestamptz,
    transfer_ids   jsonb NOT NULL,
    error          jsonb,
    link           jsonb,
    rung_at        timestamptz NOT NULL,
    rings          bigint NOT NULL,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'failed') = (error IS NOT NULL))
);
CREATE INDEX job_by_account ON job (account_id, job_id);
CREATE INDEX job_by_resource ON job (resource_id, kind);
CREATE INDEX job_by_state ON job (state, job_id);

-- A job ends once: what it said then stays said.
CREATE FUNCTION keep_ended_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % has ended as %', OLD.job_id, OLD.state;
END $$;
CREATE TRIGGER job_ends_once BEFORE UPDATE ON job FOR EACH ROW
    WHEN (OLD.state <> 'running') EXECUTE FUNCTION keep_ended_job();

CREATE TABLE hold (
    hold_id     text PRIMARY KEY,
    resource_id text NOT NULL,
    job_id      text NOT NULL REFERENCES job,
    kind        text NOT NULL,
    exclusive   boolean NOT NULL
);
CREATE UNIQUE INDEX hold_one_exclusive ON hold (resource_id) WHERE exclusive;
CREATE INDEX hold_by_resource ON hold (resource_id);
CREATE INDEX hold_by_job ON hold (job_id);

CREATE TABLE setting (
    name       text PRIMARY KEY,
    value      text NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE latch (
    name text PRIMARY KEY
);
