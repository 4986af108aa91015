"""Import paths that programs with a platform of their own use; see `swarmlearning.client.swarm`."""
