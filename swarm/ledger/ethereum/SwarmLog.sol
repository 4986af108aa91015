// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

/// An append-only log that its members alone may write to, and that orders what they write.
///
/// It understands nothing of what is appended. The entries are transactions of a swarm, signed with
/// X.509 certificates that no chain knows; whether one is allowed is decided by the swarm's state
/// machine, which reads this log. The list of writers keeps strangers from filling the log: a
/// writer is an account bound to the fingerprint of a member's key.
///
/// Rules:
///  - a writer may append, and may register one account for a member that has none;
///  - an account may give up its own place;
///  - the administrator, by default who deployed the contract, may register, replace and remove
///    any account, may reserve registration to itself, and may hand over its office.
/// Nobody, the administrator included, can alter, reorder or remove an entry.
contract SwarmLog {
    uint256 public constant LIMIT = 98304; // bytes of an entry; nodes relay 128 KiB a transaction

    // No immutables: they would be written into the byte code, which users compare with theirs.
    address public admin;
    bool public reserved; // only the administrator registers
    uint256 public born; // block of the deployment: readers begin here
    mapping(address => bytes32) public member; // of an account; 0: not a writer
    mapping(bytes32 => address) public account; // of a member
    uint256 public length;
    bytes32 public head; // hash chain over all entries

    event Appended(uint256 indexed index, address indexed author, bytes32 head, bytes data);
    event Writer(address indexed who, bytes32 indexed fingerprint, address by); // 0: removed
    event Administrator(address who);
    event Reserved(bool yes);

    error NotWriter(address who);
    error NotAllowed(address who);
    error Taken(bytes32 fingerprint);
    error TooLarge(uint256 size);

    /// The deployer is the administrator and, for `fingerprint`, the first writer.
    constructor(bytes32 fingerprint) {
        admin = msg.sender;
        born = block.number;
        emit Administrator(msg.sender);
        bind(msg.sender, fingerprint);
    }

    function append(bytes calldata data) external {
        if (member[msg.sender] == 0) revert NotWriter(msg.sender);
        if (data.length > LIMIT) revert TooLarge(data.length);
        bytes32 next = keccak256(abi.encode(head, msg.sender, keccak256(data)));
        head = next;
        emit Appended(length++, msg.sender, next, data);
    }

    /// Register `who` for the member whose key has this fingerprint.
    function register(address who, bytes32 fingerprint) external {
        if (msg.sender != admin) {
            if (member[msg.sender] == 0 || reserved) revert NotAllowed(msg.sender);
            if (account[fingerprint] != address(0) || member[who] != 0) revert Taken(fingerprint);
        }
        bind(who, fingerprint);
    }

    function remove(address who) external {
        if (msg.sender != admin && msg.sender != who) revert NotAllowed(msg.sender);
        release(who, msg.sender);
    }

    function reserve(bool yes) external {
        if (msg.sender != admin) revert NotAllowed(msg.sender);
        reserved = yes;
        emit Reserved(yes);
    }

    function handOver(address who) external {
        if (msg.sender != admin) revert NotAllowed(msg.sender);
        admin = who;
        emit Administrator(who);
    }

    function bind(address who, bytes32 fingerprint) private {
        if (fingerprint == 0) revert NotAllowed(who);
        release(who, msg.sender);
        release(account[fingerprint], msg.sender);
        member[who] = fingerprint;
        account[fingerprint] = who;
        emit Writer(who, fingerprint, msg.sender);
    }

    function release(address who, address by) private {
        bytes32 before = member[who];
        if (before == 0) return;
        delete member[who];
        delete account[before];
        emit Writer(who, 0, by);
    }
}
