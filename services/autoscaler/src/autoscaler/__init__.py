"""autoscaler: turns load samples into decisions about transfer VMs; never touches transfers."""
