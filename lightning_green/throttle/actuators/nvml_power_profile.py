"""Workload power profiles of NVIDIA GPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.energy.gpus import Gpu
from lightning_green.throttle.actuators.nvml_actuator import NvmlActuator
from lightning_green.throttle.actuators.nvml_cards import open_cards
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.settings import Setting

PROFILES = {
    "max-p": 0,
    "max-q": 1,
    "compute": 2,
    "memory-bound": 3,
    "network": 4,
    "balanced": 5,
    "llm-inference": 6,
    "llm-training": 7,
    "rbm": 8,
    "dcpcie": 9,
    "hmma-sparse": 10,
    "hmma-dense": 11,
    "sync-balanced": 12,
    "hpc": 13,
    "mig": 14,
    "max-q-1": 15,
    "network-bound": 16,
    "high-throughput-inference": 17,
    "medium-throughput-inference": 18,
    "low-latency-inference": 19,
    "training": 20,
    "inference": 21,
    "max-q-2": 22,
    "max-q-3": 23,
    "low-priority-background": 24,
}
"""NVML's numbers of the profiles by name, as in ``NVML_POWER_PROFILE_MAX_Q``."""

LOW_POWER = ("max-q", "max-q-1", "max-q-2", "max-q-3")
"""Profiles for the best performance per watt, which are offered by default."""

_NAMES = {number: name for name, number in PROFILES.items()}
_FUNCTION = "nvmlDeviceWorkloadPowerProfile"
_MAX_PROFILES = 255
_WORD_BITS = 32
_CLEAR, _ADD = 0, 1  # NVML_POWER_PROFILE_OPERATION_CLEAR and NVML_POWER_PROFILE_OPERATION_SET
_OLDER = {_CLEAR: "ClearRequestedProfiles", _ADD: "SetRequestedProfiles"}


@dataclass(frozen=True)
class _Profile:
    """A profile of a GPU.

    Args:
        bit: Position in the masks of this GPU.
        name: Name in ``PROFILES``, or the number of an unknown profile.
        conflicts: Positions of the profiles with which it cannot be combined.

    """

    bit: int
    name: str
    conflicts: frozenset[int]


class NvmlPowerProfile(NvmlActuator):
    """Request workload power profiles of NVIDIA GPUs: Blackwell or later, with a driver that has these profiles.

    A profile is a set of clocks and power limits that NVIDIA has tuned. Requires root; with newer drivers, an
    administrator can grant this permission to other users. Profiles that the site requests are kept, and a profile that
    conflicts with one of them is not offered. The driver decides which of the requested profiles it enforces; the
    measurement of the levels shows the effect.

    Args:
        profiles: Profiles to offer, such as ``"max-q"``, or combinations such as ``"max-q+llm-training"``; None for
            ``max-q``, ``max-q-1``, ``max-q-2`` and ``max-q-3``, as far as the GPU has them. In NVML, ``"max-q"`` is
            ``NVML_POWER_PROFILE_MAX_Q``.
        gpu_ids: NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs if it is not set.

    Raises:
        ValueError: If ``profiles`` is empty or contains an unknown name.

    Examples:
        ```python
        CarbonScheduler(throttle=NvmlPowerProfile(["max-q", "max-q+training"]), max_slowdown=1.15)
        ```

    """

    kind: ClassVar[str] = "NVML power profile"

    def __init__(self, profiles: Sequence[str] | None = None, gpu_ids: Sequence[str | int] | None = None) -> None:
        super().__init__(gpu_ids)
        self.profiles = list(LOW_POWER) if profiles is None else _parse(profiles)

    @override
    def arguments(self) -> dict[str, Any]:
        return {"profiles": self.profiles, "gpu_ids": self.gpu_ids}

    @override
    def read_state(self) -> dict[str, Any]:
        with open_cards(self.gpu_ids) as (nvml, gpus):
            return {gpu.uuid: sorted(_read_requested(nvml, gpu)) for gpu in gpus}

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        for bits in state.values():
            if not isinstance(bits, list) or not all(type(bit) is int and 0 <= bit < _MAX_PROFILES for bit in bits):
                raise ThrottleError(f"{bits!r} is not a list of power profiles")
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                self._request(nvml, gpu, set(state[gpu.uuid]))

    @override
    def check_permission(self, state: dict[str, Any]) -> None:
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                # This does not change the request. There are such profiles, because a setting is offered.
                unrequested = self._own_bits(_read_profiles(nvml, gpu)) - set(state[gpu.uuid])
                _update(nvml, gpu, _CLEAR, unrequested)

    @override
    def offer_settings(self, state: dict[str, Any]) -> Sequence[Setting]:
        with open_cards(list(state)) as (nvml, gpus):
            available = {gpu.uuid: _read_profiles(nvml, gpu) for gpu in gpus}
        requested = sorted({available[gpu][bit].name for gpu in state for bit in state[gpu] if bit in available[gpu]})
        original = Setting("+".join(requested) or "no profile", "+".join(requested))
        reasons = {
            names: [reason for gpu in state if (reason := _why_not(names, available[gpu], set(state[gpu]))) is not None]
            for names in self.profiles
        }
        offered = [names for names in self.profiles if not reasons[names]]
        if not offered:
            raise ThrottleError("; ".join(dict.fromkeys(reason for found in reasons.values() for reason in found)))
        return [original, *(Setting(names, names) for names in offered)]

    @override
    def apply_setting(self, setting: Setting, state: dict[str, Any]) -> None:
        with open_cards(list(state)) as (nvml, gpus):
            for gpu in gpus:
                chosen = _find(str(setting.value), _read_profiles(nvml, gpu))
                self._request(nvml, gpu, set(state[gpu.uuid]) | {profile.bit for profile in chosen})

    def _request(self, nvml: ModuleType, gpu: Gpu, wanted: set[int]) -> None:
        """Request profiles. Of the other requested profiles, only those that this actuator offers are removed."""
        requested = _read_requested(nvml, gpu)
        removed = (requested - wanted) & self._own_bits(_read_profiles(nvml, gpu))
        if removed:
            _update(nvml, gpu, _CLEAR, removed)
        if wanted - requested:
            _update(nvml, gpu, _ADD, wanted - requested)

    def _own_bits(self, available: dict[int, _Profile]) -> set[int]:
        names = {name for names in self.profiles for name in names.split("+")}
        return {profile.bit for profile in available.values() if profile.name in names}


def _parse(profiles: Sequence[str]) -> list[str]:
    """Return the names and combinations in lower case, without repetition."""
    if isinstance(profiles, str) or not profiles or not all(isinstance(names, str) for names in profiles):
        raise ValueError(f"`profiles` should be a list of names such as 'max-q', got {profiles!r}.")
    parsed = ["+".join(name.strip().lower().replace("_", "-") for name in names.split("+")) for names in profiles]
    unknown = sorted({name for names in parsed for name in names.split("+")} - set(PROFILES))
    if unknown:
        raise ValueError(f"`profiles` should contain {', '.join(PROFILES)} only, got {', '.join(map(repr, unknown))}.")
    return list(dict.fromkeys(parsed))


def _find(names: str, available: dict[int, _Profile]) -> list[_Profile]:
    wanted = names.split("+")
    return [profile for profile in available.values() if profile.name in wanted]


def _why_not(names: str, available: dict[int, _Profile], requested: set[int]) -> str | None:
    """Return why a combination of profiles cannot be requested, or None."""
    chosen = _find(names, available)
    missing = set(names.split("+")) - {profile.name for profile in chosen}
    if missing:
        return f"the GPU has no profile {', '.join(sorted(missing))}"
    bits = {profile.bit for profile in chosen}
    if bits <= requested:
        return f"{names} is already requested"
    for profile in chosen:
        for other in (available[bit] for bit in sorted(bits | requested) if bit in available):
            if other.bit in profile.conflicts or profile.bit in other.conflicts:
                already = ", which is already requested" if other.bit in requested else ""
                return f"{profile.name} conflicts with {other.name}{already}"
    return None


# -- NVML -------------------------------------------------------------------------------------------------------------


def _read_profiles(nvml: ModuleType, gpu: Gpu) -> dict[int, _Profile]:
    """Return the profiles of a GPU by their position in its masks."""
    info = _new(nvml, "c_nvmlWorkloadPowerProfileProfilesInfo_v1_t")
    _call(nvml, gpu, "GetProfilesInfo", info)
    profiles = {}
    for bit in _bits(info.perfProfilesMask):
        entry = info.perfProfile[bit]
        name = _NAMES.get(entry.profileId, str(entry.profileId))
        profiles[bit] = _Profile(bit, name, frozenset(_bits(entry.conflictingmask) - {bit}))
    return profiles


def _read_requested(nvml: ModuleType, gpu: Gpu) -> set[int]:
    current = _new(nvml, "c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t")
    _call(nvml, gpu, "GetCurrentProfiles", current)
    return _bits(current.requestedProfilesMask)


def _update(nvml: ModuleType, gpu: Gpu, operation: int, bits: Iterable[int]) -> None:
    """Add profiles to the requested ones, or remove them."""
    if hasattr(nvml, f"{_FUNCTION}UpdateProfiles_v1"):
        update = _new(nvml, "c_nvmlWorkloadPowerProfileUpdateProfiles_v1_t")
        update.operation = operation
        _fill(update.updateProfilesMask, bits)
        try:
            _call(nvml, gpu, "UpdateProfiles_v1", update)
        except _NoFunctionError:  # a driver before this function; the next two are deprecated
            pass
        else:
            return
    request = _new(nvml, "c_nvmlWorkloadPowerProfileRequestedProfiles_v1_t")
    _fill(request.requestedProfilesMask, bits)
    _call(nvml, gpu, _OLDER[operation], request)


class _NoFunctionError(ThrottleError):
    pass


def _new(nvml: ModuleType, name: str) -> Any:
    """Return a structure of NVML with its version."""
    if not hasattr(nvml, name):
        raise ThrottleError("this version of nvidia-ml-py has no workload power profiles; update nvidia-ml-py")
    return getattr(nvml, name)()


def _call(nvml: ModuleType, gpu: Gpu, function: str, argument: ctypes.Structure) -> None:
    try:
        getattr(nvml, f"{_FUNCTION}{function}")(gpu.handle, ctypes.byref(argument))  # the module passes it unchanged
    except nvml.NVMLError_FunctionNotFound as error:
        raise _NoFunctionError("the NVIDIA driver has no workload power profiles; update the driver") from error
    except nvml.NVMLError_NotSupported as error:
        raise ThrottleError(
            f"{gpu.model} has no workload power profiles; data center GPUs from Blackwell on have them"
        ) from error


def _bits(mask: Any) -> set[int]:
    return {bit for bit in range(_MAX_PROFILES) if mask.mask[bit // _WORD_BITS] >> bit % _WORD_BITS & 1}


def _fill(mask: Any, bits: Iterable[int]) -> None:
    for bit in bits:
        mask.mask[bit // _WORD_BITS] |= 1 << bit % _WORD_BITS
