-- Transfers with claims and epochs, their parts and history; movers; shares; measured rates.

CREATE TABLE transfer (
    transfer_id      text PRIMARY KEY,
    account_id       text NOT NULL,
    job_id           text NOT NULL,
    kind             text NOT NULL,
    work_class       text NOT NULL CHECK (work_class IN ('interactive', 'template', 'batch')),
    ask              jsonb NOT NULL,
    attempts_max     integer NOT NULL CHECK (attempts_max >= 1),
    created_at       timestamptz NOT NULL,
    order_at         timestamptz NOT NULL,
    zone_id          text,
    store_ids        jsonb NOT NULL DEFAULT '[]',
    rate_pair        text NOT NULL DEFAULT '',
    size_bytes       bigint,
    state            text NOT NULL CHECK (state IN ('queued', 'running', 'verifying', 'retry_wait',
                                                    'done', 'failed', 'quarantined', 'cancelled')),
    version          integer NOT NULL DEFAULT 0,
    epoch            bigint NOT NULL DEFAULT 0,
    attempts         integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    strategy         text NOT NULL DEFAULT '',
    bids             jsonb NOT NULL DEFAULT '[]',
    legs             jsonb NOT NULL DEFAULT '[]',
    needs            jsonb NOT NULL DEFAULT '[]',
    zones            jsonb NOT NULL DEFAULT '[]',
    mover_id         text,
    boot_id          text,
    lease_until      timestamptz,
    claimed_at       timestamptz,
    not_before       timestamptz,
    cancel_requested boolean NOT NULL DEFAULT false,
    upload_key       text NOT NULL DEFAULT '',
    resume           text,
    facts            jsonb NOT NULL DEFAULT '{}',
    bytes_done       bigint NOT NULL DEFAULT 0,
    bytes_total      bigint,
    parts_done       integer NOT NULL DEFAULT 0,
    bytes_resent     bigint NOT NULL DEFAULT 0,
    finished_at      timestamptz,
    result           jsonb,
    problem          jsonb,
    class_rank       smallint NOT NULL GENERATED ALWAYS AS (
        CASE work_class WHEN 'interactive' THEN 0 WHEN 'template' THEN 1 ELSE 2 END) STORED,
    CONSTRAINT attempts_bounded CHECK (attempts <= attempts_max),
    CONSTRAINT held_has_holder CHECK (
        state NOT IN ('running', 'verifying')
        OR (mover_id IS NOT NULL AND boot_id IS NOT NULL AND lease_until IS NOT NULL)),
    CONSTRAINT terminal_has_end CHECK (
        (state IN ('done', 'failed', 'quarantined', 'cancelled')) = (finished_at IS NOT NULL))
) WITH (fillfactor = 80);

CREATE INDEX transfer_ready ON transfer (class_rank, account_id, order_at, transfer_id)
    WHERE state = 'queued' AND strategy <> '';
CREATE INDEX transfer_unplanned ON transfer (transfer_id) WHERE state = 'queued' AND strategy = '';
CREATE INDEX transfer_held ON transfer (lease_until) WHERE state IN ('running', 'verifying');
CREATE INDEX transfer_retry ON transfer (not_before) WHERE state = 'retry_wait';
CREATE INDEX transfer_job ON transfer (job_id, transfer_id);
CREATE INDEX transfer_account ON transfer (account_id, transfer_id);

CREATE TABLE transfer_part (
    transfer_id text NOT NULL REFERENCES transfer,
    number      integer NOT NULL CHECK (number >= 1),
    "offset"    bigint NOT NULL CHECK ("offset" >= 0),
    length      bigint NOT NULL CHECK (length >= 0),
    receipt     text NOT NULL,
    leaves      bytea NOT NULL,
    epoch       bigint NOT NULL,
    stale       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (transfer_id, number)
);

CREATE TABLE transfer_history (
    transfer_id text NOT NULL REFERENCES transfer,
    n           integer NOT NULL,
    epoch       bigint NOT NULL,
    from_state  text,
    to_state    text NOT NULL,
    why         text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (transfer_id, n)
);

CREATE TABLE mover (
    mover_id      text PRIMARY KEY,
    boot_id       text NOT NULL,
    zone_ids      jsonb NOT NULL,
    labels        jsonb NOT NULL,
    slots         integer NOT NULL,
    public_key    text NOT NULL,
    providers     jsonb NOT NULL,
    version       text NOT NULL,
    registered_at timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL
);

CREATE TABLE share (
    share_id     text PRIMARY KEY,
    served_bytes bigint NOT NULL
);

CREATE TABLE rate (
    pair     text PRIMARY KEY,
    rate_bps double precision NOT NULL,
    samples  integer NOT NULL
);

CREATE TABLE early_cancel (
    transfer_id text PRIMARY KEY,
    reason      text NOT NULL,
    at          timestamptz NOT NULL
);

-- A finished transfer says the same for ever, whoever asks, whatever code writes.
CREATE FUNCTION transfer_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF OLD.state IN ('done', 'failed', 'quarantined', 'cancelled') THEN
        RAISE EXCEPTION 'transfer % is % and immutable', OLD.transfer_id, OLD.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'the epoch of transfer % may not fall', OLD.transfer_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    RETURN OLD;
END
$guard$;

CREATE TRIGGER transfer_guard BEFORE UPDATE OR DELETE ON transfer
    FOR EACH ROW EXECUTE FUNCTION transfer_guard();

CREATE FUNCTION transfer_history_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    RAISE EXCEPTION 'transfer_history is append-only'
        USING ERRCODE = 'integrity_constraint_violation';
END
$guard$;

CREATE TRIGGER transfer_history_guard BEFORE UPDATE OR DELETE ON transfer_history
    FOR EACH ROW EXECUTE FUNCTION transfer_history_guard();
