"""What computes: media in, masks out. Knows nothing of HTTP, Redis or jobs, and never imports `service`."""
