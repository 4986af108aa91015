"""A whole host: from one file, checked before it trains, and looked at while it does.

`swarm init` writes the file, `swarm up` and `swarm down` start and stop what it describes,
`swarm doctor` looks for what would go wrong, `swarm status` shows the network.
"""
