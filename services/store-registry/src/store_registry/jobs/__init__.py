"""Jobs: one saga per asynchronous call, stepped by a pure machine, carried out by one runner."""
