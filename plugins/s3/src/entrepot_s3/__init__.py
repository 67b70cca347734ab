"""Store provider `s3`: any S3 endpoint as image or cache store; only open imports the SDK."""

from entrepot_s3.plugin import PLUGIN

__all__ = ["PLUGIN"]
