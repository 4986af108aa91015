"""`swarm collect`: what somebody needs to help this host, in one archive, and no secret in it."""
