-- What every owning service has in its schema: history and outbox, inbox, parked messages.

CREATE TABLE aggregate_version (
    aggregate text PRIMARY KEY,
    version bigint NOT NULL
);

CREATE TABLE event_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- tail readers filter by xmin (fact F22)
    msg_id text NOT NULL UNIQUE,
    aggregate text NOT NULL,
    agg_version bigint NOT NULL,
    subject text NOT NULL,
    data json NOT NULL,  -- not jsonb: published again byte for byte
    headers jsonb NOT NULL DEFAULT '{}',
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    UNIQUE (aggregate, agg_version)
);
CREATE INDEX event_log_unpublished ON event_log (id) WHERE published_at IS NULL;
CREATE INDEX event_log_at ON event_log USING brin (at);

CREATE TABLE inbox (
    consumer text NOT NULL,
    msg_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, msg_id)
);

CREATE TABLE inbox_attempt (
    id text PRIMARY KEY,  -- consumer/msg_id
    n bigint NOT NULL,
    why text NOT NULL
);

CREATE TABLE dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    msg_id text NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    why text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    resolution text,
    UNIQUE (consumer, msg_id)
);

CREATE TABLE relay_mark (
    stream text PRIMARY KEY,
    born text NOT NULL,
    last_seq bigint NOT NULL
);

-- A hint to the relay: delivered when the transaction commits, lost without harm.
CREATE FUNCTION event_log_ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_event_log', '');
    RETURN NULL;
END $$;
CREATE TRIGGER event_log_ring AFTER INSERT ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION event_log_ring();
