"""Merging between learners: shard plan, arithmetic, and the leaderless exchange of weights."""
