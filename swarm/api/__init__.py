"""The network node's API as its clients use it."""
