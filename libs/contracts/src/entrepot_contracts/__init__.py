"""The words of Entrepot: ids, values, errors, and one module of messages per owning service."""
