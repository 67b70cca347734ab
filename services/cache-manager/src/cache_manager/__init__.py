"""cache-manager: picks cache stores by policy, keeps entries and leases; never the only copy."""
