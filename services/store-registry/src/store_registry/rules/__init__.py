"""Pure rules: what may be, where things go, who may see them. Nothing here awaits."""
