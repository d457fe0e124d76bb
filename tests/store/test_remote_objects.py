"""Objects in any Zarr store: the same contract, one writer, and no commit of a writer whose lock was taken."""

import _thread
import asyncio
import contextlib
import gc
import itertools
import os
import threading
import time

import pytest
import zarr
import zarr.storage
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from exmem.errors import FormatError, LockedError, ReadOnlyError, StoreIOError
from exmem.store.objects import LOCK_BYTES, LOCK_KEY, TEMPORARY, BudgetedObjects, objects_at, remote
from exmem.store.objects.lock import FREE, lock_document, this_process

KEY, STATE = "e0/rows/c.0.0", "state/zarr.json"
ARRAY = "e0/rows/zarr.json"
DESCRIBED = (  # icechunk takes the chunks of arrays that it knows, and no other documents than those of Zarr
    b'{"zarr_format":3,"node_type":"array","shape":[8,4],"data_type":"uint8","chunk_grid":{"name":"regular",'
    b'"configuration":{"chunk_shape":[1,4]}},"chunk_key_encoding":{"name":"default","configuration":{"separator":"."}},'
    b'"fill_value":0,"codecs":[{"name":"bytes"}],"attributes":{}}'
)
ONE, TWO, THREE, FOUR, FIVE = (
    b'{"zarr_format":3,"node_type":"group","attributes":{"exmem":%d}}' % number for number in range(1, 6)
)
BYTES = len(ONE)
BUCKET = "objects"
KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

numbers = itertools.count()


@pytest.fixture(scope="module")
def server():
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **names).create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


def memory(server):
    return zarr.storage.MemoryStore()


def obstore_memory(server):
    import obstore

    return zarr.storage.ObjectStore(obstore.store.MemoryStore())


def obstore_s3(server):
    from obstore.store import S3Store

    options = {"endpoint": server, "client_options": {"allow_http": True}}
    return zarr.storage.ObjectStore(S3Store(BUCKET, prefix=f"store-{next(numbers)}", **options, **KEYS))


def obstore_folder(server):
    import tempfile

    from obstore.store import LocalStore

    return zarr.storage.ObjectStore(LocalStore(tempfile.mkdtemp(dir=os.environ["FOLDER_OF_TEST"])))


def fsspec_memory(server):
    return zarr.storage.FsspecStore.from_url(f"memory://store-{next(numbers)}", storage_options={"asynchronous": True})


def icechunk(server):
    import icechunk

    return icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main").store


EVERY = [memory, obstore_memory, obstore_s3, obstore_folder, fsspec_memory, icechunk]
CONDITIONAL = [obstore_memory, obstore_s3]


@pytest.fixture(params=EVERY, ids=lambda make: make.__name__)
def store(request, tmp_path, monkeypatch):
    monkeypatch.setenv("FOLDER_OF_TEST", str(tmp_path))
    return request.param(request.getfixturevalue("server") if request.param is obstore_s3 else None)


@pytest.fixture(params=CONDITIONAL, ids=lambda make: make.__name__)
def conditional(request):
    return request.param(request.getfixturevalue("server") if request.param is obstore_s3 else None)


def at(store):
    return objects_at(store, durable=True)


def test_what_was_put_is_there_until_it_is_deleted(store):
    objects = at(store)
    assert objects.place is store
    assert objects.sizes() == {}
    assert objects.get(STATE, limit=9) is None
    assert objects.view(KEY) is None
    objects.put(ARRAY, DESCRIBED)
    objects.put(KEY, b"one")
    objects.put(STATE, ONE)
    assert objects.sizes() == {KEY: 3, ARRAY: len(DESCRIBED), STATE: BYTES}
    assert objects.get_many([KEY, "e0/rows/c.1.0", STATE], limit=BYTES) == [b"one", None, ONE]
    assert objects.get(ARRAY, limit=len(DESCRIBED)) == DESCRIBED
    view = objects.views(["e0/rows/c.1.0", KEY])[1]
    assert view.data == b"one"
    objects.put(KEY, b"other")
    assert objects.identity(KEY) == view.identity, "a view is a copy"
    assert objects.get(KEY, limit=5) == b"other"
    objects.delete(KEY)
    objects.delete(KEY)
    objects.delete("e1/rows/c.0.0")
    objects.delete("e1/zarr.json")
    objects.flush()
    assert objects.sizes() == {ARRAY: len(DESCRIBED), STATE: BYTES}


def test_an_object_longer_than_the_limit_is_refused(store):
    objects = at(store)
    objects.put(ARRAY, DESCRIBED)
    objects.put(KEY, bytes(1000))
    objects.put("e0/rows/c.1.0", b"")
    assert objects.get(KEY, limit=1000) == bytes(1000)
    assert objects.get("e0/rows/c.1.0", limit=0) == b""
    for read in (lambda: objects.get(KEY, limit=999), lambda: objects.get_many([KEY], limit=999)):
        with pytest.raises(FormatError, match=r"c.0.0 has more than 999 bytes"):
            read()


def test_a_lock_is_one_object_of_a_fixed_size_while_it_is_held(store):
    budgeted = BudgetedObjects(at(store), limit=LOCK_BYTES + 2 * BYTES + 1)
    assert budgeted.acquire(take=False) is False
    budgeted.measure()
    assert budgeted.sizes == {LOCK_KEY: LOCK_BYTES}
    budgeted.commit(STATE, ONE)
    budgeted.commit(STATE, TWO + b" ")
    assert budgeted.objects.sizes() == budgeted.sizes == {LOCK_KEY: LOCK_BYTES, STATE: BYTES + 1}
    budgeted.release()
    budgeted.release()
    assert at(store).sizes() == {STATE: BYTES + 1}


def test_two_writers_exclude_each_other(store):
    first, second = at(store), at(store)
    first.acquire(take=False)
    with pytest.raises(LockedError, match=rf"is open for writing by process {os.getpid()} on .*take_lock=True"):
        second.acquire(take=False)
    with pytest.raises(LockedError, match="not locked by this writer"):
        second.commit(STATE, ONE)
    first.commit(STATE, ONE)
    first.release()
    assert second.acquire(take=False) is False
    second.release()


def test_the_loser_of_a_take_over_cannot_commit_nor_end_the_lock(store):
    loser, taker = at(store), at(store)
    loser.acquire(take=False)
    loser.commit(STATE, ONE)
    assert taker.acquire(take=True) is True
    taker.commit(STATE, TWO)
    for _ in range(2):
        with pytest.raises(LockedError, match=r"the lock of .* was taken by process"):
            loser.commit(STATE, THREE)
    loser.release()
    taker.commit(STATE, FOUR)
    taker.release()
    with pytest.raises(LockedError):
        loser.commit(STATE, FIVE)
    assert at(store).get(STATE, limit=BYTES) == FOUR


def test_a_lock_that_was_removed_is_noticed(store):
    objects = at(store)
    objects.acquire(take=False)
    at(store).delete(LOCK_KEY)
    with pytest.raises(LockedError, match="was removed"):
        objects.commit(STATE, ONE)
    objects.release()
    assert at(store).sizes() == {}


@pytest.mark.parametrize("first", [True, False])
def test_a_commit_depends_on_the_version_seen_last_even_if_the_lock_was_looked_at_too_early(
    conditional, monkeypatch, first
):
    loser, taker = at(conditional), at(conditional)
    loser.acquire(take=False)
    assert loser.get(STATE, limit=9) is None
    if not first:
        loser.commit(STATE, ONE)
    taker.acquire(take=True)
    taker.commit(STATE, TWO)
    monkeypatch.setattr(loser, "check_lock", lambda: None)
    with pytest.raises(LockedError, match="was changed by another writer"):
        loser.commit(STATE, THREE)
    assert at(conditional).get(STATE, limit=BYTES) == TWO


def test_a_commit_that_was_sent_twice_is_no_failure(conditional, monkeypatch):
    objects = at(conditional)
    objects.acquire(take=False)
    objects.commit(STATE, ONE)
    at(conditional).put(STATE, TWO)  # what the first of two requests did
    objects.commit(STATE, TWO)
    objects.commit(STATE, THREE)
    objects.release()


def test_the_lock_of_a_dead_process_is_taken_and_told(store):
    at(store).put(LOCK_KEY, lock_document(this_process("x")._replace(process_start="1")))
    objects = at(store)
    assert objects.acquire(take=False) is True
    objects.release(clean=False)
    assert at(store).sizes() == {LOCK_KEY: LOCK_BYTES}
    assert objects.acquire(take=False) is True
    objects.release()


@pytest.mark.parametrize("left", [lock_document(this_process("x")._replace(host="elsewhere")), ONE])
def test_a_lock_of_which_nothing_can_be_told_is_taken_only_when_told_to(store, left):
    at(store).put(LOCK_KEY, left)
    objects = at(store)
    with pytest.raises(LockedError):
        objects.acquire(take=False)
    assert objects.acquire(take=True) is True
    objects.release()


def test_a_free_lock_that_was_copied_from_a_folder_is_free(store):
    at(store).put(LOCK_KEY, FREE)
    objects = at(store)
    assert objects.acquire(take=False) is False
    if not isinstance(objects, remote._SlashedObjects):  # icechunk takes no such key
        objects.put(f"e0/{TEMPORARY}left", b"12345")
    objects.clear_temporary()
    assert list(objects.sizes()) == [LOCK_KEY]
    objects.release()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [memory, obstore_memory, obstore_s3, fsspec_memory], ids=lambda make: make.__name__)
def test_of_writers_that_start_at_once_one_gets_the_lock(make, request):
    server = request.getfixturevalue("server") if make is obstore_s3 else None
    for _ in range(10):
        store, start, outcomes = make(server), threading.Barrier(4), []

        def open_one(store=store, start=start, outcomes=outcomes):
            objects = at(store)
            start.wait()
            try:
                objects.acquire(take=False)
            except LockedError:
                return
            outcomes.append(objects)

        threads = [threading.Thread(target=open_one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1
        outcomes[0].check_lock()


def test_a_read_only_store_is_refused_for_writing_only(server):
    for store in (memory(None), obstore_memory(None), fsspec_memory(None)):
        at(store).put(STATE, ONE)
        objects = at(store.with_read_only(True))
        assert objects.get(STATE, limit=BYTES) == ONE
        for change in (
            lambda objects=objects: objects.acquire(take=True),
            lambda objects=objects: objects.put(STATE, TWO),
            lambda objects=objects: objects.delete(STATE),
        ):
            with pytest.raises(ReadOnlyError, match="is a read-only Zarr store"):
                change()


def test_a_zip_file_can_be_read_though_it_is_not_open_and_not_changed(tmp_path):
    store = zarr.storage.ZipStore(tmp_path / "store.zip", mode="w")
    sync(store.set(STATE, default_buffer_prototype().buffer.from_bytes(b"12")))
    with pytest.raises(ReadOnlyError, match="a ZipStore, which cannot delete objects"):
        at(store).acquire(take=False)
    store.close()
    for use in (
        lambda objects: objects.sizes() == {STATE: 2},
        lambda objects: objects.get(STATE, limit=2) == b"12",
        lambda objects: objects.view(STATE).data == b"12",
    ):
        store = zarr.storage.ZipStore(tmp_path / "store.zip", mode="r")
        assert use(at(store))
        store.close()


def test_a_failing_store_is_named_with_its_own_words(monkeypatch):
    store = memory(None)

    async def fail(*arguments):
        raise ValueError("out of order")

    monkeypatch.setattr(store, "set", fail)
    with pytest.raises(StoreIOError, match=r"memory://.*out of order"):
        at(store).put(KEY, b"")


@pytest.mark.timeout(60)
def test_an_interrupted_put_has_ended_when_the_interrupt_arrives(monkeypatch):
    store, ended = memory(None), []
    real = store.set

    async def slow(key, value):
        _thread.interrupt_main()
        await asyncio.sleep(0.02)
        await real(key, value)
        ended.append(key)

    monkeypatch.setattr(store, "set", slow)
    gc.collect()
    gc.disable()  # Python forgets an interrupt that arrives in a finaliser
    try:
        for number in range(50):
            with pytest.raises(KeyboardInterrupt):
                at(store).put(KEY, b"1")
            assert len(ended) == number + 1
    finally:
        gc.enable()


def test_an_interrupt_while_the_lock_is_taken_leaves_none(monkeypatch):
    store = memory(None)
    objects = at(store)
    real, calls = objects._lock_content, []

    def content():
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real()

    monkeypatch.setattr(objects, "_lock_content", content)
    with pytest.raises(KeyboardInterrupt):
        objects.acquire(take=False)
    assert at(store).sizes() == {}


@pytest.mark.timeout(60)
def test_a_forked_child_reads_but_neither_commits_nor_ends_the_lock():
    store = memory(None)
    objects = at(store)
    objects.acquire(take=False)
    child = os.fork()
    if child == 0:
        try:
            objects.release()
            if objects.get(LOCK_KEY, limit=LOCK_BYTES) is None:
                os._exit(1)
            with contextlib.suppress(LockedError):
                objects.commit(STATE, b"")
                os._exit(2)
            os._exit(0)
        finally:
            os._exit(3)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    objects.check_lock()
    objects.release()


def test_a_store_that_knows_no_conditions_still_has_one_writer(monkeypatch):
    import obstore
    from obstore.exceptions import NotSupportedError

    real = obstore.put_async

    async def put(store, key, data, *, mode="overwrite", **options):
        if mode != "overwrite":
            raise NotSupportedError("no conditions")
        return await real(store, key, data, **options)

    monkeypatch.setattr(obstore, "put_async", put)
    store = obstore_memory(None)
    objects = at(store)
    objects.acquire(take=False)
    objects.commit(STATE, ONE)
    objects.commit(STATE, TWO)
    with pytest.raises(LockedError):
        at(store).acquire(take=False)
    objects.release()


def test_icechunk_gets_keys_with_slashes_and_says_so():
    store = icechunk(None)
    objects = at(store)
    objects.put(ARRAY, DESCRIBED)
    objects.put(KEY, b"1234")
    assert sync(store.exists("e0/rows/c/0/0"))
    assert objects.sizes()[KEY] == 4
    assert zarr.open_array(store, path="e0/rows", mode="r")[0].tolist() == [49, 50, 51, 52]
