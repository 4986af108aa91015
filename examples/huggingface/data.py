"""The reviews of the example's nodes: made here, by a small grammar, so that nothing is downloaded.

    python examples/huggingface/data.py --node 1 workspace/huggingface/user1

writes `restaurants.csv` and `films.csv`, that node's reviews to train on, and, the same for all
nodes, `restaurants-test.csv` and `films-test.csv`. A line is a text and a label: 1 says that the
writer was pleased, 0 that not.

The nodes' writers differ: each node has heard its own part of the words of praise and blame, all of
which occur in the tests. A model of one node's reviews has to guess what the others' words mean.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

TRAINING, TEST = 1600, 600  # reviews of a topic: of each node, and in the test

# Topic -> what is spoken of, and words of praise and of blame.
TOPICS = {
    "restaurants": (
        "soup bread salad fish dessert wine coffee waiter kitchen table menu breakfast".split(),
        "delicious fresh tasty lovely crisp generous warm friendly perfect fine juicy cosy".split(),
        "bland stale greasy cold burnt salty rude dirty soggy awful tiny sour".split(),
    ),
    "films": (
        "plot acting camera music ending script hero villain scene dialogue pacing cast".split(),
        "gripping moving clever bright touching vivid witty superb tender bold subtle fun".split(),
        "boring flat wooden clumsy silly noisy dull weak messy shallow lame tedious".split(),
    ),
}
OPENERS = "honestly overall sadly truly frankly well so today".split()
GRAMMAR = "the was is and but not very rather quite we found it never [UNK] [PAD] [CLS] . ,".split()

Review = tuple[str, int]


def vocabulary() -> list[str]:
    """All words, one tokenizer for all nodes: the shared file model/vocab.txt."""
    words = [word for parts in TOPICS.values() for part in parts for word in part]
    return sorted({*GRAMMAR, *OPENERS, *words})


def review(random_: random.Random, topic: str, praise: list[str], blame: list[str]) -> Review:
    """One text and its label. Said with "not", a word means its contrary."""
    things = TOPICS[topic][0]
    pleased = random_.random() < 0.5
    clauses = []
    for thing in random_.sample(things, 2):
        negated = random_.random() < 0.25
        word = random_.choice(praise if pleased != negated else blame)
        degree = random_.choice(["not"] if negated else ["", "very", "rather", "quite"])
        clauses.append(" ".join(f"the {thing} was {degree} {word}".split()))
    return f"{random_.choice(OPENERS)} , {' and '.join(clauses)} .", int(pleased)


def part(topic: str, node: int, nodes: int) -> list[Review]:
    """The training reviews of one node (from 0), with its share of the words."""
    random_ = random.Random(f"{topic} {node}")
    _, praise, blame = TOPICS[topic]
    return [
        review(random_, topic, praise[node::nodes], blame[node::nodes]) for _ in range(TRAINING)
    ]


def test(topic: str) -> list[Review]:
    """The test reviews of all nodes, with all words."""
    random_ = random.Random(f"{topic} test")
    return [review(random_, topic, *TOPICS[topic][1:]) for _ in range(TEST)]


def write(path: Path, reviews: list[Review]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *reviews])


def main() -> int:
    parser = argparse.ArgumentParser(description="Write one node's reviews.")
    parser.add_argument("directory", type=Path, help="where the files go")
    parser.add_argument("--node", type=int, default=1, help="number of this node, from 1")
    parser.add_argument("--of", type=int, default=2, help="how many nodes share the words")
    arguments = parser.parse_args()
    if not 1 <= arguments.node <= arguments.of <= 12:
        parser.error("--of must be at most 12, and --node at most that")
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for topic in TOPICS:
        write(
            arguments.directory / f"{topic}.csv",
            part(topic, arguments.node - 1, arguments.of),
        )
        write(arguments.directory / f"{topic}-test.csv", test(topic))
    print(f"wrote {TRAINING} + {TEST} reviews of each topic to {arguments.directory}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
