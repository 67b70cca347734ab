"""What one transfer has moved so far: for telemetry, the stall watch, drain and the result."""


class Progress:
    """Plain counters, written by the pipeline and read by the runner, all in one loop."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.bytes_total: int | None = None
        self.bytes_read = 0  # from the source, by this process
        self.bytes_sent = 0  # to the target, by this process, repeats included
        self.beats = 0  # grows whenever anything moves: a watch needs no more
        self._done = 0
        self._moving: dict[int, int] = {}  # part -> bytes on their way

    @property
    def bytes_done(self) -> int:
        done = self._done + sum(self._moving.values())
        return done if self.bytes_total is None else min(done, self.bytes_total)

    @property
    def bytes_acknowledged(self) -> int:
        return self._done

    def enter(self, phase: str, *, total: int | None, done: int = 0) -> None:
        self.phase, self.bytes_total, self._done = phase, total, done
        self._moving.clear()
        self.beats += 1

    def total(self, size_bytes: int) -> None:
        self.bytes_total = size_bytes

    def read(self, size_bytes: int) -> None:
        self.bytes_read += size_bytes
        self.beats += 1

    def part_begins(self, number: int) -> None:
        """Also when a part is walked again: what was on its way does not count any more."""
        self._moving[number] = 0

    def part_moves(self, number: int, size_bytes: int, *, sent: int) -> None:
        self._moving[number] = self._moving.get(number, 0) + size_bytes
        self.bytes_sent += sent
        self.beats += 1

    def part_done(self, number: int, size_bytes: int) -> None:
        self._moving.pop(number, None)
        self._done += size_bytes
        self.beats += 1
