#!/bin/sh
# What the official image promises: POSTGRES_USER, _PASSWORD, _DB and /docker-entrypoint-initdb.d.
set -eu
data=/var/lib/postgresql/data
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
mkdir -p "$data" /run/postgresql
chown postgres "$data" /run/postgresql
chmod 700 "$data"
if [ ! -s "$data/PG_VERSION" ]; then
  secret=$(mktemp)
  printf %s "$POSTGRES_PASSWORD" >"$secret"
  chown postgres "$secret"
  as_postgres initdb -D "$data" -U "$POSTGRES_USER" --pwfile="$secret" -E UTF8 --no-locale \
    --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  rm "$secret"
  echo "host all all 127.0.0.1/32 trust" >"$data/pg_hba.conf.new"
  echo "local all all trust" >>"$data/pg_hba.conf.new"
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf.new"
  mv "$data/pg_hba.conf.new" "$data/pg_hba.conf"
  chown postgres "$data/pg_hba.conf"
  as_postgres pg_ctl -D "$data" -o "-c listen_addresses=" -w start >/dev/null
  as_postgres createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
  for script in /docker-entrypoint-initdb.d/*.sh; do as_postgres sh "$script"; done
  as_postgres pg_ctl -D "$data" -m fast -w stop >/dev/null
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups postgres -D "$data" -c 'listen_addresses=*'
