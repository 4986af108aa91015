"""Who somebody is: certificates, trust, roles and signatures.

A node proves who it is by its X.509 certificate chain, and is known by the key in it, so that it
stays the same when the certificate is renewed. The role stands in the certificate, the organisation
is the CA that issued it, and every statement of a node is signed with the certificate's key.
"""

from swarm.identity.chain import Peer, key_fingerprint, member_fingerprint, verify_chain
from swarm.identity.identity import Identity
from swarm.identity.keys import verify_signature
from swarm.identity.roles import Role
from swarm.identity.tls import check_peer
from swarm.identity.trust import TrustStore
from swarm.identity.uid import fingerprint_of, node_uid

__all__ = [
    "Identity",
    "Peer",
    "Role",
    "TrustStore",
    "check_peer",
    "fingerprint_of",
    "key_fingerprint",
    "member_fingerprint",
    "node_uid",
    "verify_chain",
    "verify_signature",
]
