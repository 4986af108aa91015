"""The operator (SWOP): executes the tasks of one taskrunner on one host.

How to read it: `profile.py` says what this host offers, `plan.py` turns a profile and a task into
pairs of a learner (SL) and a user program (ML), `runtime.py` is the port through which pairs are
run (`docker_runtime.py`, `process_runtime.py`), `operator.py` decides (pure), `daemon.py` acts.
"""
