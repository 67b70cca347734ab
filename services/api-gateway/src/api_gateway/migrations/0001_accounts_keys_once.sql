-- Accounts, API keys, HTTP idempotency rows.

CREATE TABLE account (
    account_id text PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 255),
    role text NOT NULL CHECK (role IN ('admin', 'user')),
    created_at timestamptz NOT NULL
);

CREATE TABLE api_key (
    key_id text PRIMARY KEY,
    account_id text NOT NULL REFERENCES account,
    name text NOT NULL,
    secret_hash bytea NOT NULL CHECK (length(secret_hash) = 32),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX api_key_account ON api_key (account_id);

CREATE TABLE http_once (
    row_id text PRIMARY KEY,
    account_id text NOT NULL,
    fingerprint bytea NOT NULL,
    seed text NOT NULL,
    created_at timestamptz NOT NULL,
    held_until timestamptz,
    status integer,
    body bytea
);
CREATE INDEX http_once_age ON http_once (created_at);
