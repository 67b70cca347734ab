"""Store provider `file`: a directory as image, cache and primary store."""

from entrepot_file.plugin import PLUGIN

__all__ = ["PLUGIN"]
