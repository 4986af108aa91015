"""The commands that start and stop nodes: run-sn, run-sl, run-swop, run-swci, stop-swarm, swarm."""
