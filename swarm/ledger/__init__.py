"""The ledger: one certified log of signed transactions, and the state that follows from it.

From the bottom: `codec` (canonical bytes), `transaction`, `genesis` and `block` (what is signed),
`state/` (what transactions mean), `consensus/` (their order), `store` (the disk) and `replica`,
which runs all of it behind the interface in `orderer`.
"""
