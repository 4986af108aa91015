"""Commands that read and prove a ledger, or mend one, without a running node."""
