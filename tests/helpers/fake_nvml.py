"""A fake ``libnvidia-ml.so`` behind the real nvidia-ml-py."""

import ctypes
import threading
from dataclasses import dataclass, field

import pynvml

OK, NO_PERMISSION, NOT_SUPPORTED, NOT_FOUND, INVALID, LOST, SMALL = 0, 4, 3, 6, 2, 15, 7


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


class FakeDriver:
    """The functions of the library by their C names.

    The handle of a GPU is 1 + index, and that of a MIG instance is 1000 * (1 + index) + slot.
    """

    def __init__(self, cards):
        self.cards = cards
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
        if method is None:
            raise AttributeError(name)

        def call(*args):
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

    def do_nvmlDeviceGetEnforcedPowerLimit(self, handle, limit):
        return self.do_nvmlDeviceGetPowerManagementLimit(handle, limit)

    def do_nvmlDeviceGetMemoryInfo(self, handle, memory):
        memory.total, memory.free, memory.used = 80 << 30, 70 << 30, 10 << 30
        return OK

    def do_nvmlDeviceGetUtilizationRates(self, handle, rates):
        rates.gpu, rates.memory = 90, 40
        return OK
