"""The servers that `entrepot up` starts on one machine: nats-server and PostgreSQL."""
