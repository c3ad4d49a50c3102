"""Services: what operators call. How they are configured, found, run and reached."""
