"""A fake ``libnvidia-ml.so`` behind the real nvidia-ml-py."""

import ctypes
import threading
from dataclasses import dataclass, field

import pynvml

OK, NO_PERMISSION, NOT_SUPPORTED, NOT_FOUND, INVALID, LOST, SMALL = 0, 4, 3, 6, 2, 15, 7
WRONG_VERSION = 25


def set_bits(mask, bits):
    """Set bits of NVML's mask of 255 bits."""
    assert isinstance(mask, pynvml.c_nvmlMask255_t)
    for bit in bits:
        mask.mask[bit // 32] |= 1 << bit % 32


@dataclass
class Card:
    uuid: str
    model: str = "NVIDIA H100 80GB HBM3"
    millijoules: int = 1_000_000
    milliwatts: int = 300_000
    limit: int = 700_000
    limits: tuple = (200_000, 700_000)
    has_counter: bool = True
    fault: int = OK
    root: bool = True
    locked: tuple | None = None
    mig: list = field(default_factory=list)  # (uuid, gpu instance, compute instance, slices)
    processes: list = field(default_factory=list)  # PIDs
    profiles: dict = field(default_factory=dict)  # position in the masks: (profile ID, conflicting positions)
    requested: set = field(default_factory=set)  # positions of the requested profiles


class FakeDriver:
    """The functions of the library by their C names.

    The handle of a GPU is 1 + index, and that of a MIG instance is 1000 * (1 + index) + slot. ``missing`` contains the
    names of functions that an older driver does not have.
    """

    def __init__(self, cards, missing=()):
        self.cards = cards
        self.missing = set(missing)
        self.calls = []
        self.open = 0

    def install(self, monkeypatch=None):
        if monkeypatch is not None:
            monkeypatch.setattr(pynvml, "nvmlLib", self)
            monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        else:
            pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache = self, {}
        return self

    def __getattr__(self, name):
        method = getattr(type(self), f"do_{name}", None)
        if method is None or name in self.missing:
            raise AttributeError(name)

        def call(*args):
            # The library expects the address of a structure.
            assert not any(isinstance(arg, ctypes.Structure) for arg in args), name
            self.calls.append((name, threading.get_ident()))
            return method(self, *(getattr(arg, "_obj", arg) for arg in args))

        return call

    def card(self, handle):
        return self.cards[(handle.value if handle.value < 1000 else handle.value // 1000) - 1]

    def do_nvmlInitWithFlags(self, flags):
        self.open += 1
        return OK

    def do_nvmlShutdown(self):
        self.open -= 1
        return OK

    def do_nvmlErrorString(self, code):
        return b"text of the driver"

    def do_nvmlDeviceGetCount_v2(self, count):
        count.value = len(self.cards)
        return OK

    def do_nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        ctypes.cast(ctypes.pointer(handle), ctypes.POINTER(ctypes.c_void_p))[0] = 1 + index.value
        return OK

    def _handle(self, handle):
        return ctypes.cast(handle, ctypes.c_void_p)

    def _at(self, handle):
        return self.card(self._handle(handle))

    def do_nvmlDeviceGetName(self, handle, text, size):
        text.value = self._at(handle).model.encode()
        return OK

    def do_nvmlDeviceGetUUID(self, handle, text, size):
        value = self._handle(handle).value
        text.value = (self._at(handle).uuid if value < 1000 else self._at(handle).mig[value % 1000][0]).encode()
        return OK

    def do_nvmlDeviceGetMigMode(self, handle, current, pending):
        current.value = pending.value = int(bool(self._at(handle).mig))
        return OK

    def do_nvmlDeviceGetMaxMigDeviceCount(self, handle, count):
        count.value = 7
        return OK

    def do_nvmlDeviceGetMigDeviceHandleByIndex(self, handle, slot, instance):
        if slot.value >= len(self._at(handle).mig):
            return NOT_FOUND
        value = 1000 * self._handle(handle).value + slot.value
        ctypes.cast(ctypes.pointer(instance), ctypes.POINTER(ctypes.c_void_p))[0] = value
        return OK

    def _instance(self, handle):
        return self._at(handle).mig[self._handle(handle).value % 1000]

    def do_nvmlDeviceGetGpuInstanceId(self, handle, number):
        number.value = self._instance(handle)[1]
        return OK

    def do_nvmlDeviceGetComputeInstanceId(self, handle, number):
        number.value = self._instance(handle)[2]
        return OK

    def do_nvmlDeviceGetAttributes_v2(self, handle, attributes):
        attributes.gpuInstanceSliceCount = self._instance(handle)[3]
        return OK

    def do_nvmlDeviceGetTotalEnergyConsumption(self, handle, energy):
        card = self._at(handle)
        energy.value = card.millijoules
        return card.fault or (OK if card.has_counter else NOT_SUPPORTED)

    def do_nvmlDeviceGetPowerUsage(self, handle, power):
        power.value = self._at(handle).milliwatts
        return self._at(handle).fault

    def do_nvmlDeviceGetPowerManagementLimit(self, handle, limit):
        limit.value = self._at(handle).limit
        return OK

    def do_nvmlDeviceGetPowerManagementLimitConstraints(self, handle, low, high):
        low.value, high.value = self._at(handle).limits
        return OK

    def do_nvmlDeviceSetPowerManagementLimit(self, handle, limit):
        card = self._at(handle)
        if not card.root:
            return NO_PERMISSION
        if not card.limits[0] <= limit.value <= card.limits[1]:
            return INVALID
        card.limit = limit.value
        return OK

    def do_nvmlDeviceGetSupportedMemoryClocks(self, handle, count, clocks):
        return self._list([2619], count, clocks)

    def do_nvmlDeviceGetSupportedGraphicsClocks(self, handle, memory, count, clocks):
        return self._list(list(range(1980, 195, -15)), count, clocks)

    def _list(self, values, count, clocks):
        if clocks is None:
            count.value = len(values)
            return SMALL
        for index, value in enumerate(values):
            clocks[index] = value
        return OK

    def do_nvmlDeviceSetGpuLockedClocks(self, handle, low, high):
        if not self._at(handle).root:
            return NO_PERMISSION
        self._at(handle).locked = (low.value, high.value)
        return OK

    def do_nvmlDeviceResetGpuLockedClocks(self, handle):
        if not self._at(handle).root:
            return NO_PERMISSION
        self._at(handle).locked = None
        return OK

    def do_nvmlDeviceGetComputeRunningProcesses_v3(self, handle, count, processes):
        pids = self._at(handle).processes
        if processes is None:
            count.value = len(pids)
            return SMALL if pids else OK
        for index, pid in enumerate(pids):
            processes[index].pid = pid
        count.value = len(pids)
        return OK

    do_nvmlDeviceGetComputeRunningProcesses_v2 = do_nvmlDeviceGetComputeRunningProcesses_v3

    def do_nvmlDeviceWorkloadPowerProfileGetProfilesInfo(self, handle, info):
        assert isinstance(info, pynvml.c_nvmlWorkloadPowerProfileProfilesInfo_v1_t)
        if info.version != pynvml.nvmlWorkloadPowerProfileProfilesInfo_v1:
            return WRONG_VERSION
        card = self._at(handle)
        set_bits(info.perfProfilesMask, card.profiles)
        for bit, (number, conflicts) in card.profiles.items():
            info.perfProfile[bit].profileId = number
            set_bits(info.perfProfile[bit].conflictingmask, conflicts)
        return OK if card.profiles else NOT_SUPPORTED

    def do_nvmlDeviceWorkloadPowerProfileGetCurrentProfiles(self, handle, current):
        assert isinstance(current, pynvml.c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t)
        if current.version != pynvml.nvmlWorkloadPowerProfileCurrentProfiles_v1:
            return WRONG_VERSION
        card = self._at(handle)
        set_bits(current.perfProfilesMask, card.profiles)
        set_bits(current.requestedProfilesMask, card.requested)
        return OK if card.profiles else NOT_SUPPORTED

    def do_nvmlDeviceWorkloadPowerProfileUpdateProfiles_v1(self, handle, update):
        assert isinstance(update, pynvml.c_nvmlWorkloadPowerProfileUpdateProfiles_v1_t)
        return self._request(handle, update.operation, update.updateProfilesMask)

    def do_nvmlDeviceWorkloadPowerProfileSetRequestedProfiles(self, handle, request):
        return self._request(handle, pynvml.NVML_POWER_PROFILE_OPERATION_SET, request.requestedProfilesMask, request)

    def do_nvmlDeviceWorkloadPowerProfileClearRequestedProfiles(self, handle, request):
        return self._request(handle, pynvml.NVML_POWER_PROFILE_OPERATION_CLEAR, request.requestedProfilesMask, request)

    def _request(self, handle, operation, mask, request=None):
        if request is not None and request.version != pynvml.nvmlWorkloadPowerProfileRequestedProfiles_v1:
            return WRONG_VERSION
        card, bits = self._at(handle), {bit for bit in range(256) if mask.mask[bit // 32] & 1 << bit % 32}
        if not card.profiles:
            return NOT_SUPPORTED
        if not card.root:
            return NO_PERMISSION
        if not bits or not bits <= set(card.profiles):
            return INVALID
        if operation == pynvml.NVML_POWER_PROFILE_OPERATION_SET:
            card.requested |= bits
        else:
            assert operation == pynvml.NVML_POWER_PROFILE_OPERATION_CLEAR
            card.requested -= bits
        return OK

    def do_nvmlDeviceGetEnforcedPowerLimit(self, handle, limit):
        return self.do_nvmlDeviceGetPowerManagementLimit(handle, limit)

    def do_nvmlDeviceGetMemoryInfo(self, handle, memory):
        memory.total, memory.free, memory.used = 80 << 30, 70 << 30, 10 << 30
        return OK

    def do_nvmlDeviceGetUtilizationRates(self, handle, rates):
        rates.gpu, rates.memory = 90, 40
        return OK
