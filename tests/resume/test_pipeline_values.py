"""Values of a pipeline that cannot be read or copied, or that belong to their process."""

import threading
from multiprocessing.shared_memory import SharedMemory

from filelock import FileLock

from lightning_green.resume.pipeline_state import PipelineState
from lightning_green.resume.plain_data import from_plain, to_plain
from tests.helpers.keeper import Keeper, count


class Unbound:
    """As a proxy of a library to an object that does not exist yet."""

    @property
    def __class__(self):
        raise RuntimeError("unbound")


def test_objects_that_cannot_be_read_are_left_out():
    one = Keeper(count, proxy=Unbound())
    state = PipelineState(one)
    one()
    assert state.capture()["values"]["0"]["count"]["value"] == 1


class RaisesWhenCopied(dict):
    def items(self):
        raise RuntimeError("closed")


def test_value_that_raises_when_it_is_copied_is_left_out():
    one = Keeper(count, options={}, count=0)
    state = PipelineState(one)
    one.options = RaisesWhenCopied(a=1)
    one()
    assert state.capture()["values"]["0"]["count"]["value"] == 1


def test_locks_and_threads_keep_the_state_of_their_process(tmp_path):
    """A lock knows the process that it belongs to, and refuses to be used in another one."""
    lock = FileLock(tmp_path / "lock", thread_local=False)
    one = Keeper(count, lock=lock, thread=threading.Thread(target=len), count=0)
    state = PipelineState(one)
    one()
    lock.acquire()
    one.thread.name = "other"
    assert set(state.capture()["values"]) == {"0"}
    lock.release()


class Stream:
    """As a ``StreamingDataset`` of MosaicML, which keeps its epoch in shared memory."""

    __module__ = "streaming.base.dataset"

    def __init__(self):
        self.shared = SharedMemory(create=True, size=8)

    @property
    def next_epoch(self):
        return self.shared.buf[0]

    @next_epoch.setter
    def next_epoch(self, epoch):
        self.shared.buf[0] = epoch


def test_epoch_that_a_stream_of_mosaicml_keeps_in_shared_memory_is_restored():
    streams = [Stream(), Stream()]
    try:
        one, other = (PipelineState(stream) for stream in streams)
        streams[0].next_epoch = 3
        assert not one.capture(shared=False)["values"]
        other.restore(from_plain(to_plain(one.capture())))
        assert streams[1].next_epoch == 3
    finally:
        for stream in streams:
            stream.shared.close()
            stream.shared.unlink()


def test_attribute_of_a_class_that_the_script_deletes():
    class Script:
        calls = 0

    state = PipelineState(Script())
    state.mark()
    del Script.calls
    state.mark()
    state.capture()
