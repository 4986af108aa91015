"""The ledger's order taken from an Ethereum-compatible network, instead of from votes.

One small contract (`SwarmLog.sol`) is an append-only log. Network nodes append signed transactions
to it, many in one entry, and read it back; what is final there becomes blocks here, by rules that
give every node the same blocks. Everything above the orderer is the same as with the embedded one.

- `contract`  the contract: byte code, calls, events
- `entries`   how transactions travel in an entry, and how entries become blocks (pure)
- `follower`  reading the log: finality, gaps, reorganisations (pure)
- `sender`    writing it: nonces, fees, replacement of what is stuck (pure)
- `client`    JSON-RPC through web3, with several end points; blocking, for worker threads
- `account`   the file with an account's private key
- `orderer`   all of it together, as an `Orderer`

What an RPC end point says about the network is believed, apart from what the contract's own hash
chain and the X.509 signatures inside disprove: point it at a node that you trust, best your own.
"""
