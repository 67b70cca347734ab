#!/bin/sh
# Run once by the postgres image on an empty data volume: a role and a schema per service.
set -eu
for service in store_registry motion_engine cache_manager autoscaler api_gateway; do
  variable=$(echo "${service}_PASSWORD" | tr '[:lower:]' '[:upper:]')
  eval "password=\${$variable}"
  psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<SQL
CREATE ROLE $service LOGIN PASSWORD '$password';
CREATE SCHEMA $service AUTHORIZATION $service;
ALTER ROLE $service SET search_path = $service;
SQL
done
