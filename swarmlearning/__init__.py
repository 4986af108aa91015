"""The library inside a user's training program.

A program adds one callback: from `swarmlearning.tf` (Keras), `swarmlearning.pyt` (PyTorch),
`swarmlearning.hf_transformers`, `swarmlearning.sklearn` or `swarmlearning.numpy`; the learner
beside it does the rest. Needs numpy alone; each framework is imported by its own modules only.
"""

from __future__ import annotations

from swarmlearning.errors import SwarmError

__all__ = ["SwarmError"]
