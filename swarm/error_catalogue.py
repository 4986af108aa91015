"""All error codes, in one table.

Ranges: SW10xx general, SW11xx and SW12xx identity, SW2xxx mesh, SW3xxx ledger, SW4xxx state machine
verdicts, SW5xxx API, SW6xxx learner and merging, SW7xxx operator, SW8xxx command interface,
SW9xxx launch scripts.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """What a code means, and what to do about it."""

    meaning: str
    remedy: str


CATALOGUE: dict[str, Entry] = {
    "SW1001": Entry("unexpected internal state", "please report it with the log of this node"),
    "SW1101": Entry(
        "certificate files exist already",
        "use --renew for new node certificates of the same CA, or --force to replace all of them",
    ),
    "SW1102": Entry("a wrong option for certificates", "see gen-cert --help"),
    "SW1103": Entry("certificate files cannot be written", "check the directory and its owner"),
    "SW1104": Entry(
        "a certificate request cannot be read",
        "send the file that swarm cert request wrote, whole and as it is",
    ),
    "SW1105": Entry(
        "a certificate request is not signed by its own key",
        "the file was altered, or somebody asks for another's key: request it anew",
    ),
    "SW1106": Entry(
        "a certificate request asks for what is not issued",
        "request a node's name (SN-3) with IP addresses and DNS names, as swarm cert request does",
    ),
    "SW1107": Entry(
        "the name was issued for another key",
        "renew with the same key, choose another name, or use --replace if that key was given up",
    ),
    "SW1108": Entry(
        "the fingerprint was not compared",
        "ask the requester to read it out again, and sign nothing that differs",
    ),
    "SW1201": Entry(
        "no identity was given",
        "give --cert and --key (or SWARM_ID_CERT and SWARM_ID_KEY), and --capath or --cacert",
    ),
    "SW1202": Entry(
        "a certificate or key file cannot be read or parsed",
        "check that the file exists, belongs to you and is an unencrypted PEM file",
    ),
    "SW1203": Entry("a certificate has expired", "renew it with gen-cert --renew"),
    "SW1204": Entry(
        "a certificate is not valid yet", "set the clock of this host, or wait until it is valid"
    ),
    "SW1205": Entry(
        "the CA of a certificate is not trusted",
        "copy the other host's ca-<i>-cert.pem into the directory of --capath",
    ),
    "SW1206": Entry("a certificate was revoked by its CA", "ask that CA for a new one"),
    "SW1207": Entry(
        "a certificate has the wrong role",
        "use the certificate of this component: sn-, sl-, swop- or swci-<i>-cert.pem",
    ),
    "SW1208": Entry("the private key is missing", "give the key file with --key"),
    "SW1209": Entry(
        "the key does not fit the certificate", "give the key that was made with this certificate"
    ),
    "SW1210": Entry(
        "a key or signature of a kind that is not accepted",
        "use ECDSA P-256, RSA of at least 2048 bits or Ed25519, signed with SHA-256 or better",
    ),
    "SW1211": Entry(
        "a certificate chain is malformed", "make the certificate anew, for instance with gen-cert"
    ),
    "SW1212": Entry("there is no trusted CA", "give the CA certificates with --capath or --cacert"),
    "SW1213": Entry(
        "the certificate file holds a certificate of another key",
        "a new key is a new member: renew with the same key (gen-cert --renew), or restart the "
        "node to let it join as the new member",
    ),
    "SW1220": Entry(
        "the delegation of a SPIFFE certificate is malformed",
        "run the same version on all nodes; if it persists, look at the node that presents it",
    ),
    "SW1221": Entry(
        "a delegation is not signed by both keys, the SPIFFE certificate's and the member's",
        "somebody claims another's certificate or key: look at the node that presents it",
    ),
    "SW1222": Entry(
        "a delegation is to last longer than its SPIFFE certificate",
        "run the same version on all nodes; if it persists, look at the node that presents it",
    ),
    "SW1223": Entry(
        "a SPIFFE id and the CA of its certificate do not belong together",
        "give each trust domain CAs of its own, and federate the domains with each other",
    ),
    "SW1224": Entry(
        "two identities were given",
        "give either --socket-path, or --cert and --key; CAs of files may be given with both",
    ),
    "SW1225": Entry(
        "the SPIFFE agent gave no identity",
        "start the agent, check the path of its socket, and register an entry for this process",
    ),
    "SW1226": Entry(
        "the SPIFFE agent gives no identity of the role or id that is needed",
        "register an id for it whose path ends with /sn, /sl, /swop or /swci",
    ),
    "SW1227": Entry(
        "the lasting key of a node with a SPIFFE identity cannot be kept or used",
        "name a directory that it may write with SWARM_SPIFFE_KEY_DIR, and keep its files",
    ),
    "SW1228": Entry(
        "the SPIFFE library is not installed", "install swarmlearning[node], which brings it"
    ),
    "SW1229": Entry(
        "a SPIFFE certificate had expired before the ledger saw a newer one of its domain",
        "send it again with the present certificate; see the node's log if it has none",
    ),
    "SW1230": Entry(
        "another network node has the same SPIFFE id",
        "register an id for each network node; a node that lost its key has to leave, or be "
        "evicted and get a new id",
    ),
    "SW2001": Entry("the peer is not connected", "wait for it to return; status lists who is up"),
    "SW2002": Entry("a peer did not answer in time", "check its load and the link to it"),
    "SW2003": Entry("the connection was lost during a call", "it is made again by itself"),
    "SW2004": Entry("a peer reads too slowly", "check its load and the link to it"),
    "SW2005": Entry("a peer could not carry out a request", "see the log of that node"),
    "SW2006": Entry("a peer does not know a request", "run the same version on all nodes"),
    "SW2007": Entry("a peer is busy", "try again later"),
    "SW2010": Entry("a peer sent something malformed", "run the same version on all nodes"),
    "SW2011": Entry("a peer belongs to another ledger", "check which sentinel it was given"),
    "SW2012": Entry("a peer speaks another protocol", "run the same version on all nodes"),
    "SW2013": Entry(
        "a peer was refused, or refused this node",
        "compare certificates, trust stores and clocks of both nodes",
    ),
    "SW2014": Entry("a message cannot be carried", "please report it with the log of this node"),
    "SW2015": Entry("a connection was given up", "it is made again by itself"),
    "SW2016": Entry("a peer cannot be reached", "check its address, port and firewall"),
    "SW2020": Entry(
        "the peer-to-peer port cannot be opened", "choose a free port with --sn-p2p-port"
    ),
    "SW2021": Entry(
        "the key of the certificate cannot be used among network nodes",
        "use ECDSA P-256, Ed25519 or RSA of 2048 to 4096 bits, as gen-cert makes them",
    ),
    "SW2022": Entry(
        "the address book cannot be written", "check space and permissions of the data directory"
    ),
    "SW3001": Entry(
        "a transaction is malformed or too large",
        "the sender's program does not follow the protocol; compare the versions of both nodes",
    ),
    "SW3002": Entry(
        "the signature of a transaction does not fit",
        "the sender signs with a key that is not its certificate's, or the bytes were altered",
    ),
    "SW3003": Entry(
        "a genesis is malformed",
        "compare the versions of this node and of the sentinel it starts from",
    ),
    "SW3004": Entry(
        "a block or its certificate is not valid",
        "nothing is lost: it is refused and fetched from another node; look at the named node",
    ),
    "SW3005": Entry(
        "a ledger message is malformed",
        "nothing is lost: it is dropped; compare the versions of both nodes",
    ),
    "SW3006": Entry(
        "a transaction cannot be included",
        "send a new one: it was replayed, has expired, or belongs to another swarm",
    ),
    "SW3007": Entry(
        "too many transactions wait",
        "send again later; if it persists, see what the ledger waits for with GET /v1/status",
    ),
    "SW3008": Entry(
        "no quorum of network nodes answered in time",
        "start the missing network nodes, or mend the connection to them; then send it again",
    ),
    "SW3010": Entry(
        "the data directory belongs to another swarm",
        "give this node its own SWARM_DATA_DIR, or the one it had before",
    ),
    "SW3011": Entry(
        "the ledger on disk is damaged",
        "move the data directory away and start again: the node fetches the ledger from its peers",
    ),
    "SW3012": Entry(
        "the ledger cannot be written to disk",
        "make room or mend the disk, then start again; nothing that was acknowledged is lost",
    ),
    "SW3013": Entry(
        "this node's state differs from the one that the others certified",
        "run the same version on all network nodes; then start with an empty data directory",
    ),
    "SW3014": Entry(
        "a validator voted twice, which the crash fault model excludes",
        "find the network node that runs twice with one certificate, stop one, then start again",
    ),
    "SW3015": Entry(
        "the data directory is in use by another process",
        "stop the other network node, or give this one a SWARM_DATA_DIR of its own",
    ),
    "SW3016": Entry(
        "the data directory belongs to another network node",
        "give this node its own SWARM_DATA_DIR, or the key that the directory was made with",
    ),
    "SW3017": Entry(
        "a network node has signed what it does not remember",
        "nothing after restoring a backup: it votes again soon; else look for its key in use twice",
    ),
    "SW3030": Entry(
        "the network was recovered without this node's agreement",
        "ask its operators; then accept the recovery with swarm ledger accept on the stopped "
        "node's data directory, or rejoin with a new one",
    ),
    "SW3031": Entry(
        "a ledger cannot be recovered or a recovery not accepted like this",
        "follow docs/how-to/members.md; nothing was changed",
    ),
    "SW3201": Entry(
        "a ledger is not what it claims to be",
        "do not rely on it from the named height on; ask other members for theirs and compare",
    ),
    "SW3202": Entry(
        "the ledger or record to be checked cannot be read",
        "give a data directory of a stopped node, or a file that swarm ledger export or "
        "swarm record export has written",
    ),
    "SW3203": Entry(
        "a record of a training does not prove what it says",
        "do not rely on it; ask a member for another export and compare",
    ),
    "SW3204": Entry(
        "the model is not the one that the record names",
        "check that it is the model of this training, saved after its last round and not changed; "
        "where layers of its own kind hold other layers, give its weights as .npz with --weights",
    ),
    "SW3205": Entry(
        "the weights of the model cannot be read, or not put into their order",
        "give them with --weights: numpy.savez(FILE, *model.get_weights())",
    ),
    "SW3206": Entry(
        "there is nothing of this name to export",
        "take the name of a contract in which a round was decided: LIST CONTRACTS in run-swci",
    ),
    "SW3101": Entry(
        "the libraries for Ethereum-compatible networks are missing",
        "install them: pip install 'swarmlearning[node,ethereum]'",
    ),
    "SW3102": Entry(
        "the RPC end points belong to another network",
        "give --rpc URLs of the network whose chain id the message names as the right one",
    ),
    "SW3103": Entry(
        "no RPC end point of the ordering network does its work",
        "start the node behind it or mend the connection; with several URLs in --rpc one is enough",
    ),
    "SW3104": Entry(
        "there is no contract of this kind at the address",
        "correct --contract, or deploy one: swarm ledger deploy-contract",
    ),
    "SW3105": Entry(
        "the file of the account's private key cannot be used",
        "give a file of yours with 64 hexadecimal digits and mode 0600; "
        "swarm ledger new-account makes one",
    ),
    "SW3106": Entry(
        "the account may not write to the contract",
        "have a member register it: swarm ledger writer; a running network node does it for a "
        "node that joins",
    ),
    "SW3107": Entry(
        "the account cannot pay for gas",
        "transfer funds to it; nothing is lost, waiting transactions are sent then",
    ),
    "SW3108": Entry(
        "a block of the ordering network that was final has changed",
        "ask who runs that network; if the change is to stay, start every network node with an "
        "empty data directory, and found swarms there with more --confirmations",
    ),
    "SW3109": Entry(
        "an RPC end point gives an answer that cannot be right",
        "nothing is lost: it is asked again, and another one, too; look at the node behind it",
    ),
    "SW3110": Entry(
        "the ordering network refused a transaction",
        "read its reason; a member's account may have been removed from the contract",
    ),
    "SW3111": Entry(
        "two anchors of one ledger contradict each other",
        "a writer of the contract lies, or the ledger was rewritten: compare both with the "
        "members' copies, and name the accounts that you trust with --anchor-account",
    ),
    "SW4001": Entry(
        "a transaction cannot be in the next block",
        "send it anew: with a fresh id, to the right swarm, expiring within 2000 heights",
    ),
    "SW4002": Entry("malformed arguments of an operation", "correct the argument that is named"),
    "SW4003": Entry("unknown operation", "run the same version on all nodes"),
    "SW4004": Entry(
        "the role of the certificate does not allow this",
        "use the certificate of the component that the operation is for",
    ),
    "SW4005": Entry(
        "a node of another key or role",
        "act only for nodes that your own certificate, or one before it of the same key, enrolled",
    ),
    "SW4006": Entry(
        "a bound of the ledger is reached", "stop or remove what is not needed, then try again"
    ),
    "SW4010": Entry("a node that is not enrolled", "enroll it first; see LIST NODES"),
    "SW4011": Entry("a peer id that another node has", "give each SN a certificate of its own"),
    "SW4012": Entry("only validators may do this", "send it through an SN that is a validator"),
    "SW4013": Entry("not a CA certificate", "give one certificate in DER form"),
    "SW4014": Entry(
        "the last validator cannot be evicted", "let another SN join as a validator first"
    ),
    "SW4015": Entry(
        "the key of this member was barred: it was evicted",
        "nothing signed with this key is taken any more; ask the members that voted for it",
    ),
    "SW4016": Entry(
        "two statements prove nothing against a validator",
        "evidence is two signatures of one key for one step and different blocks",
    ),
    "SW4017": Entry(
        "a recovery in an ordinary block, or of SNs that are no validators",
        "use swarm ledger recover on the data directory of a stopped SN",
    ),
    "SW4020": Entry("there is no such task", "see LIST TASKS"),
    "SW4021": Entry("a task of this name exists", "choose another name, or DELETE TASK first"),
    "SW4022": Entry(
        "the task is finalized", "DELETE TASK and create it anew, or take another name"
    ),
    "SW4023": Entry("the task, or its prerequisite, is not finalized", "FINALIZE TASK first"),
    "SW4024": Entry("the task belongs to another organisation", "create one of your own"),
    "SW4025": Entry("the task cannot be executed", "assign another task"),
    "SW4030": Entry("there is no such taskrunner", "see LIST TASKRUNNERS"),
    "SW4031": Entry("a taskrunner of this name exists", "use it, or choose another name"),
    "SW4032": Entry("the taskrunner is not idle", "wait for it to end, then RESET TASKRUNNER"),
    "SW4033": Entry(
        "a report about an assignment that is over", "nothing; the taskrunner has moved on"
    ),
    "SW4034": Entry("enough operators take part already", "nothing; the next task is for you"),
    "SW4035": Entry(
        "the operator cannot take part in this task",
        "check taskrunner and nodes in its profile, and the target of the assignment",
    ),
    "SW4036": Entry("the operator or pair has not enrolled for this task", "enroll first"),
    "SW4037": Entry("a peer's status cannot change that way", "report statuses in order"),
    "SW4038": Entry(
        "no operator that could do it listens on the taskrunner",
        "start a SWOP with this taskrunner in its profile; see LIST NODES",
    ),
    "SW4040": Entry("there is no such contract", "CREATE CONTRACT first; see LIST CONTRACTS"),
    "SW4041": Entry("a contract of this name exists", "use it, or choose another name"),
    "SW4042": Entry(
        "rules that differ from the contract's",
        "give the same values in all programs, or RESET CONTRACT and start all again",
    ),
    "SW4043": Entry("the learner is not in the contract", "enroll in it first"),
    "SW4044": Entry("the learner was lost or has left", "enroll again"),
    "SW4045": Entry(
        "rules that no round could hold",
        "raise minPeers, or choose another mergeMethod or other mergeArgs",
    ),
    "SW4050": Entry("the training is over", "RESET CONTRACT before the next training"),
    "SW4051": Entry("a statement about another round", "read the contract's record again"),
    "SW4052": Entry("the roster is closed", "take part in the next round"),
    "SW4053": Entry(
        "the learner does not hold the last decided model", "fetch it, then check in again"
    ),
    "SW4054": Entry(
        "a model of another shape", "train the same model everywhere, or use another contract"
    ),
    "SW4055": Entry("a second check-in with other values", "enroll again to replace the first"),
    "SW4056": Entry("a weight of 0", "give a weight, or checkinModelOnTrainEnd='inactive'"),
    "SW4057": Entry("the roster cannot be closed yet", "wait for more check-ins"),
    "SW4058": Entry("a statement about another attempt", "read the contract's record again"),
    "SW4059": Entry("the learner is not in the roster", "take part in the next round"),
    "SW4060": Entry(
        "a result that differs from the decided one", "fetch the decided model, and use that"
    ),
    "SW4061": Entry(
        "a lost learner reported by one that cannot", "nothing; its parent or validators will"
    ),
    "SW4062": Entry("a suspicion that cannot be", "suspect other members of the roster only"),
    "SW4070": Entry(
        "what is to be deleted is in use", "end that use first: delete, reset or stop what uses it"
    ),
    "SW4071": Entry(
        "what every swarm has cannot be deleted",
        "leave it; RESET empties contracts and taskrunners",
    ),
    "SW4072": Entry(
        "what is to be deleted belongs to another organisation",
        "ask that organisation; its own command interface can delete it",
    ),
    "SW4073": Entry(
        "a round was decided in the very block that should forget it", "give the command again"
    ),
    "SW5001": Entry(
        "no network node answers",
        "check host, port and firewall, and that run-sn has logged its ready line",
    ),
    "SW5002": Entry(
        "the network node refuses this certificate",
        "give it a certificate of a CA that the network nodes trust, not expired, not revoked",
    ),
    "SW5003": Entry(
        "the server is not a trusted network node",
        "check host and port, and that the CA of that node is in this node's trust directory",
    ),
    "SW5004": Entry(
        "a network node sent an answer that makes no sense",
        "run the same version on all nodes",
    ),
    "SW5005": Entry(
        "the network nodes cannot commit: too few of them are up",
        "start or reconnect the network nodes that the message names",
    ),
    "SW5006": Entry(
        "a network node refused the request",
        "run the same version on all nodes; the message names what was wrong",
    ),
    "SW5007": Entry(
        "the ledger refused the operation for a reason that this version does not know",
        "run the same version on all nodes",
    ),
    "SW5008": Entry(
        "the role of this certificate may not use this part of the API",
        "use the certificate that gen-cert made for this kind of node",
    ),
    "SW5009": Entry(
        "a member asks for more than its share of a network node",
        "nothing, clients wait and ask again by themselves; see docs/how-to/limits.md",
    ),
    "SW5101": Entry(
        "the settings of the network node do not fit together",
        "correct the flags of run-sn that the message names",
    ),
    "SW5102": Entry("the API port cannot be opened", "choose a free port with --sn-api-port"),
    "SW5104": Entry("the network node is still starting", "wait for its ready line, or try again"),
    "SW8001": Entry(
        "the start-up script cannot be read", "check SWCI_STARTUP_SCRIPT and the user directory"
    ),
    "SW8002": Entry("a setting of the command interface is wrong", "correct the named variable"),
    "SW8010": Entry(
        "a task definition is wrong", "correct the named lines; see the reference of task files"
    ),
    "SW8020": Entry("a line is no command of the command interface", "HELP lists all commands"),
    "SW8021": Entry("no context is active", "use CREATE CONTEXT, then SWITCH CONTEXT"),
    "SW8022": Entry("there is no object of this name", "the LIST commands show which there are"),
    "SW8023": Entry("an argument of a command cannot be", "correct the argument that is named"),
    "SW8024": Entry(
        "the network node does not answer",
        "check that it runs, its address and port, and what lies between; WAIT FOR IP waits for it",
    ),
    "SW8025": Entry(
        "the task has failed", "see GET TASKRUNNER PEER STATUS, and the logs of the SWOP"
    ),
    "SW8026": Entry(
        "there is no task to wait for",
        "ASSIGN TASK first; somebody may have reset the taskrunner meanwhile",
    ),
    "SW8027": Entry(
        "a file or directory of the command interface cannot be used",
        "check the path with ls and pwd; /platform/swarm/usr is the user directory",
    ),
    "SW8028": Entry(
        "a setting of a context is wrong", "change it with SET CONTEXT ENV; see LIST CONTEXT ENV"
    ),
    "SW8029": Entry("a context of this name exists", "use it, or choose another name"),
    "SW8030": Entry("the command was interrupted", "what the network has begun goes on"),
    "SW8040": Entry("the port of web mode cannot be opened", "choose a free one: SWCI_WEB_PORT"),
    "SW8041": Entry(
        "a client of web mode may not send commands",
        "use a certificate of the role SWCI from the CA of that SWCI's own certificate",
    ),
    "SW8042": Entry(
        "a request of web mode is malformed",
        "see docs/how-to/commands-from-programs.md for the form of requests",
    ),
    "SW8043": Entry(
        "a client of web mode asks for too much at the same time",
        "let earlier commands end; waits and other commands are counted apart",
    ),
    "SW8044": Entry(
        "an uploaded file is not taken", "send one text file in the field file, with a plain name"
    ),
    "SW9001": Entry(
        "unknown log level",
        "use DEBUG, INFO, WARNING, ERROR or CRITICAL",
    ),
    "SW9002": Entry(
        "there is no container engine on this machine",
        "install Docker, or start the node as a local process with --runtime process",
    ),
    "SW9003": Entry(
        "the container engine refused a request",
        "read what the engine says; `docker info` shows whether it runs and may be used by you",
    ),
    "SW9004": Entry(
        "a node of this name is running already",
        "choose another --name, or stop that node with stop-swarm",
    ),
    "SW9005": Entry(
        "the node ended while it was starting",
        "read the last lines of its log, shown above or by `swarm logs <name>`",
    ),
    "SW9006": Entry(
        "no node of this name is known on this machine",
        "list what was started with `swarm logs`, or look with `docker ps -a`",
    ),
    "SW9030": Entry(
        "the host's file cannot be read",
        "give it with -f FILE, or write one with `swarm init`",
    ),
    "SW9031": Entry(
        "the host's file is wrong", "correct the named lines; see the reference of swarm.yaml"
    ),
    "SW9032": Entry(
        "a node runs with other settings than its host's file has now",
        "apply them with `swarm up --restart`, or `swarm down` and `swarm up`",
    ),
    "SW9033": Entry(
        "a node with the name of one of this host runs already",
        "stop it as it was started, or give the host another `name`",
    ),
    "SW9034": Entry(
        "a node did not become ready in time",
        "see the reason and the end of its log; `swarm doctor` looks for the cause, and "
        "`swarm up --wait` gives more time",
    ),
    "SW9035": Entry(
        "no host of this name was started here",
        "give the file with -f, or one of the named hosts",
    ),
    "SW9036": Entry(
        "a host is being started or stopped by another command",
        "wait until that has ended",
    ),
    "SW9037": Entry(
        "the record of what `swarm up` started cannot be read",
        "stop the host's nodes with stop-swarm, and remove the named file",
    ),
    "SW9038": Entry(
        "the file to be written exists already", "choose another with --output, or use --force"
    ),
    "SW9010": Entry(
        "a program that shall run beside a node cannot be started",
        "check --ml-entrypoint: it needs a program on the PATH, or a path that may be executed",
    ),
    "SW9011": Entry(
        "the directory for logs cannot be written to",
        "name a directory with LOGS_DIR that this node's user may write to, or leave LOGS_DIR out",
    ),
    "SW9013": Entry(
        "the archive of logs cannot be written",
        "name a directory with --output that you may write to and that has space",
    ),
    "SW9012": Entry(
        "a file of the node's identity is closed to the user that the node runs as",
        "start the node as the file's owner (a container: --user), or give the file to this user",
    ),
    "SW9040": Entry(
        "a certificate expires soon",
        "renew it in time: gen-cert --renew, or swarm cert renew; the node stays the same member",
    ),
    "SW9041": Entry("a private key is open to others on this host", "chmod 600 the key file"),
    "SW9042": Entry(
        "something that shall be mounted is not there", "create it, or correct the path"
    ),
    "SW9043": Entry(
        "something that shall be mounted is closed to this user",
        "change its owner or mode, or run the nodes as the user who may",
    ),
    "SW9044": Entry(
        "there is little space on a disk", "free some, or move data and SWARM_HOME elsewhere"
    ),
    "SW9045": Entry(
        "other hosts cannot reach the announced address",
        "announce the address or name at which the others reach this host",
    ),
    "SW9046": Entry("a port of this host cannot be used", "end who has it, or choose another port"),
    "SW9047": Entry(
        "a port of another host is not reached from here",
        "open it: a firewall of this host, of that one, or between them",
    ),
    "SW9048": Entry(
        "the clocks of two hosts differ",
        "synchronise both with NTP: certificates are judged by each host's own clock",
    ),
    "SW9049": Entry(
        "a port of this host is not reached by the others",
        "open it for incoming connections: a firewall of this host, or between the two",
    ),
    "SW9050": Entry(
        "something could not be checked yet",
        "run `swarm doctor` again when a network node of another host runs, with --join",
    ),
    "SW9051": Entry(
        "an image is missing on this host", "build it with `make image`, or pull or load it"
    ),
    "SW9052": Entry("a Docker network is missing", "create it with docker network create"),
    "SW9053": Entry(
        "a program asks for devices that this host cannot give",
        "install the driver, or ask for less in the profile",
    ),
    "SW6001": Entry("the learner's port cannot be opened", "choose a free port with --sl-fs-port"),
    "SW6002": Entry(
        "the directory shared with the user's program cannot be used",
        "check SWARM_LINK and its permissions",
    ),
    "SW6003": Entry(
        "the files shared with the user's program cannot be used",
        "check space and permissions of the directory; both programs need the same version",
    ),
    "SW6005": Entry(
        "the user's program and its learner speak different protocols",
        "install the swarmlearning library of the learner's version",
    ),
    "SW6006": Entry(
        "an unknown merge method",
        "choose one that every learner knows; install its package, in the same version, everywhere",
    ),
    "SW6007": Entry(
        "the user's program names another training contract than the one before it",
        "start another learner for it",
    ),
    "SW6008": Entry(
        "the user's program broke the rules of the link",
        "install the swarmlearning library of the learner's version",
    ),
    "SW6010": Entry(
        "a setting of the learner is missing or wrong", "check the flags of run-sl, or the profile"
    ),
    "SW6011": Entry(
        "this learner is no longer in its training contract", "start the training again"
    ),
    "SW6012": Entry(
        "a merge method of an installed package failed",
        "correct that package, or choose another mergeMethod",
    ),
    "SW6013": Entry("unusable mergeArgs", "see docs/explanation/merging.md for their meaning"),
    "SW6014": Entry(
        "the program's weights hold NaN or infinity",
        "check its data and learning rate, or choose a robust mergeMethod or wider transferDtype",
    ),
    "SW6015": Entry(
        "too few members contribute for the merge method",
        "start more learners, raise minPeers, or choose another mergeMethod",
    ),
    "SW6101": Entry(
        "another learner broke the protocol",
        "compare the versions of both learners; the ledger goes on without it when it repeats it",
    ),
    "SW6102": Entry(
        "the connection to another learner ended", "it is made again while it is needed"
    ),
    "SW6103": Entry(
        "another learner cannot be connected to",
        "check its --host-ip and --sl-fs-port, and the firewall between the hosts",
    ),
    "SW6104": Entry(
        "another learner shows a certificate that is not its own on the ledger",
        "check that its --host-ip and --sl-fs-port lead to it and to nobody else",
    ),
    "SW6105": Entry("another learner does not take part in an attempt", "it is asked again"),
    "SW6106": Entry("another learner does not hold the wanted model", "the next holder is asked"),
    "SW6107": Entry(
        "another learner offers a model of another shape",
        "the next holder is asked; compare the versions of both learners",
    ),
    "SW6108": Entry(
        "the kept model cannot be read", "check space and permissions of the shared directory"
    ),
    "SW6109": Entry(
        "no contributing member's weights are finite",
        "lower the learning rate; all programs brought NaN or infinity",
    ),
    "SW7001": Entry("the operator's profile cannot be read", "check the path and its permissions"),
    "SW7002": Entry("a file is not usable YAML", "correct the line that is named"),
    "SW7003": Entry(
        "the operator's profile does not fit the schema",
        "correct the lines that are named; profiles/SCHEMA.md lists every key",
    ),
    "SW7004": Entry(
        "the operator's environment is incomplete or wrong",
        "start it with run-swop, which sets these variables",
    ),
    "SW7005": Entry(
        "no network node answers the operator",
        "start the SN, or correct apisrv.locator in the profile or --sn-ip and --sn-api-port",
    ),
    "SW7006": Entry(
        "the Docker engine cannot be used",
        "start it, and let this user or the operator's container reach its socket",
    ),
    "SW7007": Entry(
        "the source of a mount does not exist on this host",
        "create it, or correct the path in the profile or the task",
    ),
    "SW7008": Entry(
        "a mount point is already taken on this host",
        "move what is there, or run the task with the DOCKER runtime",
    ),
    "SW7009": Entry(
        "the image or environment of the user's program is missing on this host",
        "run the task that the RUN_SWARM task names as its Prereq first",
    ),
    "SW7010": Entry("an image could not be built", "correct the build step that is named"),
    "SW7011": Entry(
        "a learner or user program could not be started",
        "see the cause; the engine or the system refused it",
    ),
    "SW7012": Entry(
        "this kind of build is not available", "use BuildType INLINE, with the steps in the task"
    ),
    "SW7013": Entry("the body of a task is unusable", "correct the task, then assign it again"),
    "SW7014": Entry(
        "the local environment cannot run swarm programs",
        "install swarmlearning and what the program imports beside the operator",
    ),
    "SW7015": Entry(
        "the operator's record of what it started cannot be used",
        "give it a data directory of its own (SWARM_DATA_DIR) that it may write",
    ),
    "SW7040": Entry(
        "the engine has no GPU for a user program",
        "install the driver and the NVIDIA container toolkit on this host and restart the engine,"
        " or take gpus out of usrcontaineropts",
    ),
    "SW7020": Entry(
        "a task was given up", "assign it again; raise SWOP_TASK_MAX_SECONDS if it needs more time"
    ),
    "SW7021": Entry(
        "this host's rules forbid to fetch it",
        "correct the address, or ask the host's administrator to list it in SWOP_CONTENT_HOSTS or"
        " to offer the directory in SWOP_CONTENT_FILES",
    ),
    "SW7022": Entry(
        "content could not be fetched", "see whether the address answers, from that host"
    ),
    "SW7023": Entry(
        "content is not safe or not whole",
        "make the archive again, of files, directories and links that stay inside",
    ),
    "SW7024": Entry(
        "content differs from its checksum",
        "correct Sha256 in the task, or find out who has changed the file",
    ),
    "SW7025": Entry(
        "content is larger than this host allows",
        "make it smaller, free some space, or raise SWOP_CONTENT_MAX_BYTES on that host",
    ),
    "SW7026": Entry(
        "a volume would be overwritten",
        "choose another Outcome, or remove the volume on that host",
    ),
    "SW7027": Entry(
        "a volume is not complete yet", "assign the task again once the content task is over"
    ),
    "SW7028": Entry(
        "the process that fills volumes failed", "see the cause, and the operator's log"
    ),
    "SW7029": Entry(
        "an image could not be pulled",
        "correct OrgAndReg, RepoName, Tag or Auth in the task, and see whether the engine of that"
        " host reaches the registry",
    ),
    "SW7030": Entry(
        "the login for a registry cannot be read on this host",
        "put a docker config.json that knows the registry into the directory SWOP_REGISTRY_LOGINS",
    ),
    "SW7031": Entry(
        "a task would replace the image of this host's nodes", "choose another Outcome"
    ),
    "SW7041": Entry(
        "this engine cannot give a user program a GPU",
        "use a Docker engine on the host with the GPU, or take gpus out of usrcontaineropts",
    ),
    "SW7042": Entry(
        "the container engine does not answer",
        "start it again; the operator goes on by itself",
    ),
}
