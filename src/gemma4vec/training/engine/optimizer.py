"""AdamW on fp32 copies of the trained parameters, and the learning-rate schedule.

Adapters have the base's dtype (bf16), which is fast, but loses updates that are far smaller than the weight. So the
optimizer keeps an fp32 copy of each parameter, updates the copy, and copies it back rounded (Micikevicius et al. 2018,
arXiv:1710.03740). If a parameter is fp32 or wider already, the copy is the parameter itself.

With fake quantization the copy is the unquantized weight, and the parameter that the model reads is the quantized one.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gemma4vec.errors import InputError
from gemma4vec.model.adapters.fake_quantize import FakeQuantization
from gemma4vec.model.upstream import copy_tensors
from gemma4vec.recipe import schema
from gemma4vec.training.engine.task import ExtraParameter

# Param-group keys that select an implementation; they do not change the update.
_IMPLEMENTATION_KEYS = ("fused", "foreach", "capturable")


class MasterAdamW:
    """AdamW whose state and weights are at least fp32."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: schema.Optimizer,
        extra_parameters: Mapping[str, ExtraParameter] | None = None,
        quantization: FakeQuantization | None = None,
    ):
        if not parameters:
            raise InputError("model: nothing is trained; set model.lora, or model.train=full")
        extra = extra_parameters or {}
        self.parameters = {**parameters, **{name: own.parameter for name, own in extra.items()}}
        self.settings = settings
        self._quantization = quantization
        self._quantized = quantization.trained if quantization is not None else frozenset()
        self.masters = {name: self._master(name, parameter) for name, parameter in self.parameters.items()}
        own = settings.readout_learning_rate
        # Readout weights start at zero, or as factors near one, while adapters are small changes to a base: they may
        # need another learning rate.
        readout = [p for name, p in self.masters.items() if own is not None and name.startswith("readout.")]
        apart = {name for name in self.masters if name in extra or (own is not None and name.startswith("readout."))}
        rest = [p for name, p in self.masters.items() if name not in apart]
        groups: list[tuple[list[nn.Parameter], float, dict[str, float]]] = [
            (rest, 1.0, {}),
            (readout, (own or 0.0) / settings.learning_rate, {}),
        ]
        # No weight decay: shrinking a temperature towards 0 is not neutral.
        groups += [
            ([self.masters[name]], found.learning_rate / settings.learning_rate, {"weight_decay": 0.0})
            for name, found in extra.items()
        ]
        self._factors = [factor for part, factor, _ in groups if part]
        self.adamw = torch.optim.AdamW(
            [{"params": part, **options} for part, _, options in groups if part],
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            # On a GPU one kernel updates all parameters; on a CPU the order of operations must not change.
            fused=all(master.device.type == "cuda" for master in self.masters.values()) or None,
        )

    def _master(self, name: str, parameter: nn.Parameter) -> nn.Parameter:
        """The weight that is updated: the parameter itself, or an unrounded copy."""
        wide = parameter.dtype in (torch.float32, torch.float64)
        if wide and name not in self._quantized:
            return parameter
        return nn.Parameter(parameter.detach().to(parameter.dtype if wide else torch.float32).clone())

    def quantize_weights(self) -> None:
        """With fake quantization: write the quantized trained weights into the model."""
        if self._quantization is not None:
            self._quantization.refresh(self.masters)

    def step(self, learning_rate: float) -> float:
        """Clip, update, copy back, and drop the gradients. Return the gradient's norm before clipping.

        A gradient that is not finite updates nothing: one such step would make every later value NaN.
        """
        copied = [(p, self.masters[name]) for name, p in self.parameters.items() if self.masters[name] is not p]
        gradients = [parameter.grad for parameter, _ in copied if parameter.grad is not None]
        for parameter, master in copied:
            master.grad = None if parameter.grad is None else torch.empty_like(master)
        if gradients:  # all at once: on a GPU hundreds of small copies take longer than the update
            copy_tensors([master.grad for _, master in copied if master.grad is not None], gradients)
        limit = self.settings.clip if self.settings.clip is not None else math.inf
        norm = float(nn.utils.clip_grad_norm_(list(self.masters.values()), limit))
        for group, factor in zip(self.adamw.param_groups, self._factors, strict=True):
            group["lr"] = learning_rate * factor
        if math.isfinite(norm):
            self.adamw.step()
        rounded = [(p, self.masters[name]) for name, p in self._rounded()]
        with torch.no_grad():
            if rounded:
                copy_tensors([parameter for parameter, _ in rounded], [master for _, master in rounded])
            for name, parameter in self.parameters.items():
                self.masters[name].grad = parameter.grad = None
        self.quantize_weights()
        return norm

    def _rounded(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that hold their copy's values, rounded to their dtype."""
        named = self.parameters.items()
        return [(name, p) for name, p in named if self.masters[name] is not p and name not in self._quantized]

    def weights(self) -> dict[str, Tensor]:
        """The trained values by name, at full precision."""
        return {name: master.detach().clone().cpu() for name, master in self.masters.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Load trained values into copies and parameters."""
        with torch.no_grad():
            for name, value in weights.items():
                self.masters[name].copy_(value)
            for name, parameter in self._rounded():
                parameter.copy_(self.masters[name])
        self.quantize_weights()

    def state(self) -> dict[str, Any]:
        """Return moments and step counters."""
        return self.adamw.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Load moments and step counters, also from another device. The implementation of the update stays ours."""
        own = [{name: group[name] for name in _IMPLEMENTATION_KEYS} for group in self.adamw.param_groups]
        groups = [saved | mine for saved, mine in zip(state["param_groups"], own, strict=True)]
        self.adamw.load_state_dict({**state, "param_groups": groups})


def learning_rate(settings: schema.Optimizer, step: int, total: int | None, flat_until: int = 0) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `total`.

    Linear warm-up over `warmup_steps`, then the schedule decays to zero at the end. While the total is unknown (the
    first `flat_until` steps of a budget in minutes or tokens) there is no decay. Decay starts after them, so that a
    resumed run has the same rates.
    """
    peak = settings.learning_rate
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    start = max(settings.warmup_steps, flat_until)
    if settings.schedule == "constant" or total is None or step < start:
        return peak
    progress = min(1.0, (step - start) / max(1, total - start))
    if settings.schedule == "linear":
        return peak * (1.0 - progress)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
