"""How many rows each step takes, and so where in the data it stands: closed forms of the step number.

Small batches early on cost nothing in quality, for gradients are then dominated by their mean, and they
save tokens (McCandlish et al. 2018, arXiv:1812.06162, section 2.2).
"""

from dataclasses import dataclass

from pydantic import Field

from bessemer.config import Config, Count


class BatchWarmup(Config):
    """The batch grows evenly from `start_tokens` to the full `batch_tokens`."""

    start_tokens: Count = Field(ge=1)
    """Tokens of the first step."""
    steps: Count = Field(ge=1)
    """Steps until the batch is full."""


@dataclass(frozen=True)
class BatchSizes:
    """Rows a step: `start` at step 0, evenly more until `full` at step `warmup_steps`."""

    full: int
    start: int
    warmup_steps: int = 0

    def rows(self, step: int) -> int:
        """Rows of `step`, from 0."""
        if step >= self.warmup_steps:
            return self.full
        return self.start + (self.full - self.start) * step // self.warmup_steps

    def rows_before(self, step: int) -> int:
        """Rows of all steps before `step`."""
        growing = min(step, self.warmup_steps)
        total = self.full * (step - growing) + self.start * growing
        if growing:
            total += floor_sum(growing, self.warmup_steps, self.full - self.start)
        return total

    def numbers(self, step: int) -> range:
        """Numbers of the rows of a step, in the endless sequence of rows."""
        return range(self.rows_before(step), self.rows_before(step + 1))

    def steps_within(self, num_rows: int) -> int:
        """Most steps that take no more than `num_rows` rows."""
        at_warmup_end = self.rows_before(self.warmup_steps)
        if num_rows >= at_warmup_end:
            return self.warmup_steps + (num_rows - at_warmup_end) // self.full
        low, high = 0, self.warmup_steps  # rows_before(low) <= num_rows < rows_before(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.rows_before(middle) <= num_rows else (low, middle)
        return low

    def steps_covering(self, num_rows: int) -> int:
        """Fewest steps that take at least `num_rows` rows."""
        steps = self.steps_within(num_rows)
        return steps if self.rows_before(steps) >= num_rows else steps + 1


def floor_sum(count: int, divisor: int, factor: int) -> int:
    """Sum of floor(factor · i / divisor) over 0 ≤ i < count, in a logarithm of steps.

    By the Euclidean reduction of lattice points under a line (Graham, Knuth & Patashnik, "Concrete
    Mathematics", section 3.5).
    """
    total, offset = 0, 0
    # Invariant: the wanted sum is total + the sum of floor((factor * i + offset) / divisor), i < count.
    while count > 0:
        whole, factor = divmod(factor, divisor)
        total += (count - 1) * count // 2 * whole
        whole, offset = divmod(offset, divisor)
        total += count * whole
        top = factor * count + offset
        # The points that are left lie below the line; count them by the other axis.
        count, offset = divmod(top, divisor)
        factor, divisor = divisor, factor
    return total
