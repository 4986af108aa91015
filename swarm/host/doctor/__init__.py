"""`swarm doctor`: what would go wrong, looked for before anything trains.

Facts in, findings out: `local`, `engine` and `reach` gather facts, `findings` judges them and
touches nothing, `command` prints.
"""
