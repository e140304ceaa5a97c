"""The progress of a training: loss, speed and time left."""

from collections import deque

from gemma4vec.machine.terminal import ProgressBar, duration


class StepBar(ProgressBar):
    """The steps of a stage; `name` begins its lines."""

    def __init__(self, name: str):
        super().__init__(name, "steps", final_line=True)
        self._losses: deque[float] = deque(maxlen=10)

    def step(self, step: int, total: int | None, loss: float, tokens_per_second: float, seconds_a_step: float) -> None:
        """Show a step that is done; `loss` is smoothed over the last ten."""
        self._losses.append(loss)
        mean_loss = sum(self._losses) / len(self._losses)
        left = "measuring the pace" if total is None else f"{duration((total - step) * seconds_a_step)} left"
        self(step, total, f"loss {mean_loss:.4f}, {tokens_per_second:,.0f} tokens/s, {left}")
