"""The main job of Entrepot, shown end to end on real servers: `make demo`."""
