"""Built-in motion strategies; they come through the entry point group like any other."""
