"""Life of a cache entry as a pure table: reserved -> filling -> ready -> evicting -> gone."""

from enum import StrEnum

from entrepot_contracts.cache import EntryState as State


class Stimulus(StrEnum):
    FILL_STARTED = "fill_started"
    FILL_VERIFIED = "fill_verified"
    FILL_FAILED = "fill_failed"
    FILLER_LOST = "filler_lost"  # its lease ran out: the next asker takes over, epoch + 1
    EVICT = "evict"
    BYTES_GONE = "bytes_gone"


TRANSITIONS: dict[tuple[State, Stimulus], State] = {
    (State.RESERVED, Stimulus.FILL_STARTED): State.FILLING,
    (State.RESERVED, Stimulus.FILL_FAILED): State.FAILED,
    (State.RESERVED, Stimulus.FILLER_LOST): State.RESERVED,
    (State.FILLING, Stimulus.FILL_VERIFIED): State.READY,
    (State.FILLING, Stimulus.FILL_FAILED): State.FAILED,
    (State.FILLING, Stimulus.FILLER_LOST): State.RESERVED,
    (State.READY, Stimulus.EVICT): State.EVICTING,
    (State.EVICTING, Stimulus.BYTES_GONE): State.GONE,
    (State.FAILED, Stimulus.BYTES_GONE): State.GONE,
}

# Late or repeated word of something that has been decided: changes nothing.
IGNORED: frozenset[tuple[State, Stimulus]] = frozenset(
    {
        (State.FILLING, Stimulus.FILL_STARTED),
        (State.READY, Stimulus.FILL_STARTED),
        (State.READY, Stimulus.FILL_VERIFIED),
        (State.READY, Stimulus.FILLER_LOST),
        (State.FAILED, Stimulus.FILL_STARTED),
        (State.FAILED, Stimulus.FILL_FAILED),
        (State.FAILED, Stimulus.FILLER_LOST),
        (State.EVICTING, Stimulus.EVICT),
        (State.EVICTING, Stimulus.FILLER_LOST),
        (State.GONE, Stimulus.BYTES_GONE),
        (State.GONE, Stimulus.FILLER_LOST),
        (State.GONE, Stimulus.EVICT),
    }
)

ENDED = frozenset({State.FAILED, State.GONE})


class IllegalTransition(Exception):
    def __init__(self, state: State, stimulus: Stimulus) -> None:
        super().__init__(f"an entry that is {state} cannot take {stimulus}")
        self.state = state
        self.stimulus = stimulus


def step(state: State, stimulus: Stimulus) -> State:
    """The next state. Raises IllegalTransition for a pair that neither table names."""
    if (state, stimulus) in IGNORED:
        return state
    try:
        return TRANSITIONS[state, stimulus]
    except KeyError:
        raise IllegalTransition(state, stimulus) from None
