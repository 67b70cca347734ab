"""The process that moves bytes: claims work over the bus, runs it, holds no database password."""
