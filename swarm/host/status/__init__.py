"""`swarm status`: one screen of the whole network, and what each thing in it waits for.

`gather` asks the network nodes, `overview` makes plain rows of what they say, `screen` draws these.
"""
