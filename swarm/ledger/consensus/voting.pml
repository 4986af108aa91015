/*
 * Voting and locking of `algorithm.py`, for the model checker Spin: can two blocks be decided?
 *
 * One height, 3 honest validators, liars that make it 4. Each step below is named after the rule of
 * `algorithm.py`, and so after the line of arXiv:1807.04938, Algorithm 1. `tests/spin` runs it:
 *
 *     spin -a voting.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m1000000
 *
 * The search covers more than can happen, so what it does not find cannot happen either:
 *
 * - Votes are facts that stay. A validator acts on any that exist, at any time, or never: this is
 *   every loss, delay, repetition and order of messages.
 * - The liar has sent every vote for every value in every round, and each validator takes of them
 *   what suits: it counts wherever a quorum is counted.
 * - Every round's proposer is a liar that shows each validator any value with any valid round. An
 *   honest one could only do less, so proposals need no memory, nor do lines 14 to 19 and 42, 43
 *   (they choose what to propose).
 * - Time-outs run out whenever it hurts, and round skipping (line 55) needs nobody's message.
 * - A crash is no step: whatever is signed and locked was written first, so the validator that
 *   comes back is the one that went (but see -DFORGETLOCK).
 *
 * Left out: more than 4 validators, and everything about getting on (the simulator looks for that).
 *
 * Planted bugs, each of which must be found:
 *   -DQUORUM=2      quorum minus one; the same as one liar more than the rules promise to bear
 *   -DNOLOCK        prevotes in spite of a lock
 *   -DTRUSTVR       line 28 without the quorum of prevotes in round vr
 *   -DUNLOCK        line 28 without `lockedRound <= vr` (needs -DROUNDS=3)
 *   -DFORGETLOCK    a crash loses the lock, but not the votes
 *   -DVOTETWICE     a crash loses the votes of the round, but not the lock
 * -DREACH asserts that nothing is ever decided, to see that the search gets there.
 *
 * Searched whole: 2 rounds (383 thousand states, 0.4 s) in the tests; -DROUNDS=3 once, with
 * `gcc -DCOLLAPSE` (24 million states, 77 s, 1.7 GB). The other fault model, 3 validators of which
 * none lies and a quorum of 2, is the same search: there is one vote less to have and to need.
 */

#ifndef ROUNDS
#define ROUNDS 2
#endif

#define HONEST 3
#define LIARS 1
#ifndef QUORUM
#define QUORUM 3        /* quorum.py: 2n / 3 + 1 of 4 */
#endif

/* Steps, as in algorithm.py. */
#define PROPOSE   0
#define PREVOTE   1
#define PRECOMMIT 2

/* Values are bits, so that one byte holds all that a validator voted for in a step. */
#define NONE  0
#define A     1
#define B     2

#define AT(r, p)  ((r) * HONEST + (p))
#define BY(votes, r, p, v)  ((votes[AT(r, p)] & (v)) != 0)
#define HAS_QUORUM(votes, r, v) \
    (LIARS + BY(votes, r, 0, v) + BY(votes, r, 1, v) + BY(votes, r, 2, v) >= QUORUM)

byte prevotes[ROUNDS * HONEST];
byte precommits[ROUNDS * HONEST];
byte round[HONEST];
byte step[HONEST];
byte locked_value[HONEST];
byte locked_round[HONEST];      /* counted from 1; 0 is the paper's -1 */
byte decided;                   /* every value that anybody may decide */

#ifdef NOLOCK
#define FREE(v, r)  true
#else
#define FREE(v, r)  (locked_round[me] <= (r) || locked_value[me] == (v))
#endif

/* ------------------------------------------------------------------ what the steps do */

#define VOTE(kind, votes, v) \
    step[me] = kind; votes[AT(round[me], me)] = votes[AT(round[me], me)] | (v)

/* Line 49 needs nothing but the facts, so whoever completes a quorum decides for everybody. */
inline line_49() {
    if
    :: HAS_QUORUM(precommits, round[me], A) -> decided = decided | A
    :: else
    fi;
    if
    :: HAS_QUORUM(precommits, round[me], B) -> decided = decided | B
    :: else
    fi;
#ifdef REACH
    assert(decided == NONE);
#endif
    assert(decided != (A | B))
}

/* ------------------------------------------------------------------ the rules */

/* A first proposal: prevote for it unless locked on another block. */
#define LINE_22(v) \
    d_step { step[me] == PROPOSE && FREE(v, 0) -> VOTE(PREVOTE, prevotes, v) }

/* A proposal that had a quorum of prevotes in an earlier round may undo an older lock. */
#ifdef TRUSTVR
#define HAD_QUORUM(v, r)  true
#else
#define HAD_QUORUM(v, r)  HAS_QUORUM(prevotes, r, v)
#endif
#ifdef UNLOCK
#define LINE_29(v, r)  true
#else
#define LINE_29(v, r)  FREE(v, (r) + 1)
#endif
#define LINE_28(v, r) \
    d_step { step[me] == PROPOSE && (r) < round[me] && HAD_QUORUM(v, r) \
             && LINE_29(v, r) -> VOTE(PREVOTE, prevotes, v) }

/* Prevotes of a quorum for a valid block: lock it, precommit. */
#define LINE_36(v) \
    d_step { step[me] == PREVOTE && HAS_QUORUM(prevotes, round[me], v) -> \
             locked_value[me] = v; \
             locked_round[me] = round[me] + 1; \
             VOTE(PRECOMMIT, precommits, v); \
             line_49() }

proctype Validator(byte me) {
    do
    :: LINE_22(A)
    :: LINE_22(B)
    :: LINE_28(A, 0)
    :: LINE_28(B, 0)
#if ROUNDS > 2
    :: LINE_28(A, 1)
    :: LINE_28(B, 1)
#endif
    :: LINE_36(A)
    :: LINE_36(B)

    /* Lines 26, 32, 57: prevote nothing. Votes for nothing support nothing, so none is kept. */
    :: d_step { step[me] == PROPOSE -> step[me] = PREVOTE }

    /* Lines 44, 61: precommit nothing. */
    :: d_step { step[me] == PREVOTE -> step[me] = PRECOMMIT }

    /* Lines 11, 34, 47, 55, 65: the next round. */
    :: d_step { round[me] < ROUNDS - 1 -> round[me]++; step[me] = PROPOSE }

#ifdef FORGETLOCK
    :: d_step { locked_round[me] > 0 -> locked_round[me] = 0; locked_value[me] = NONE }
#endif
#ifdef VOTETWICE
    :: d_step { step[me] > PROPOSE -> step[me] = PROPOSE }
#endif
    :: step[me] == PRECOMMIT && round[me] == ROUNDS - 1 -> break
    od
}

init {
    atomic { run Validator(0); run Validator(1); run Validator(2) }
}
