"""Object stores: addresses, failing uploads, and a whole run with its output on S3."""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs
from werkzeug.wrappers import Request

from bob.core.types import Outcome
from bob.store import Store, files
from tests import tiny

BIG = 21 << 20
"""Bytes: an upload in three parts."""


# -- addresses ----------------------------------------------------------------------------------


def test_a_server_may_be_named_in_the_address(bucket, monkeypatch):
    scheme, _, server = os.environ["AWS_ENDPOINT_URL"].partition("://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = f"?endpoint_override={server}&scheme={scheme}&region=us-east-1"
    artefacts = Store(f"{bucket}/named/{options}")
    artefacts.require_writable()
    artefacts.write("a/b.bin", b"x")
    assert artefacts.names("a") == ["b.bin"]
    assert artefacts.scratch("tune") == f"{bucket}/named/scratch/tune{options}"
    filesystem, below = fs.FileSystem.from_uri(artefacts.scratch("tune"))  # as Ray does
    filesystem.create_dir(below)
    assert filesystem.get_file_info(below).type == fs.FileType.Directory


def test_messages_show_no_access_keys_or_options(bucket):
    name = bucket.partition("://")[2]
    artefacts = Store(f"s3://key:secret@{name}/out?region=us-east-1")
    assert artefacts.place("a/b") == f"{bucket}/out/a/b"
    with pytest.raises(ValueError, match=r"s3://no-such-bucket/out: .*NO_SUCH_BUCKET.*\. Choose another --out") as said:
        Store("s3://key:secret@no-such-bucket/out?region=us-east-1").require_writable()
    assert "secret" not in str(said.value)


def test_an_address_that_is_none_says_what_is():
    with pytest.raises(ValueError, match=r"cannot open 'foo://bucket' .* --out must be a folder, s3://bucket/prefix"):
        Store("foo://bucket").require_writable()


def test_google_storage_opens():
    filesystem, below = files.locate("gs://anonymous@bucket/prefix/")
    assert isinstance(filesystem, fs.GcsFileSystem)
    assert below == "bucket/prefix"


def test_on_s3_nothing_stale_is_looked_for(bucket):
    artefacts = Store(f"{bucket}/stale")
    artefacts.write(f".a.{'0' * 32}.tmp", b"")
    assert artefacts.clear_stale(age=-60.0) == 0


# -- uploads that fail --------------------------------------------------------------------------


@pytest.fixture(params=["POST uploads", "PUT partNumber=1&", "PUT partNumber=2&", "PUT partNumber=3&", "POST uploadId"])
def refusing(request) -> Iterator[str]:
    """The options that lead to a server which refuses one of the requests that an upload is made of."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://refusing{options}&allow_bucket_creation=true")
    filesystem.create_dir("refusing")
    wsgi: Any = server._server
    willing = wsgi.app

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not f"{environ['REQUEST_METHOD']} {environ['QUERY_STRING']}".startswith(request.param):
            return willing(environ, start_response)
        Request(environ).get_data()
        start_response("403 Forbidden", [("Content-Length", "0")])
        return [b""]

    wsgi.app = app
    yield options
    server.stop()


def test_a_file_whose_upload_fails_is_not_there(refusing, bucket):
    """Not even an empty one, which is what pyarrow's stream makes of it when it is closed after a failed write."""
    artefacts = Store(f"s3://refusing/{uuid.uuid4().hex}{refusing}")  # all servers of a process hold the same
    with pytest.raises(ValueError, match=r"^cannot write s3://refusing/.*/a.bin \(.*\): all that is complete is kept"):
        artefacts.write("a.bin", b"x" * BIG)
    artefacts.write("b.bin", b"x")
    assert artefacts.names("") == ["b.bin"]
    assert not artefacts.exists("a.bin")


def test_a_large_file_is_written_whole(bucket):
    artefacts, content = Store(f"{bucket}/large"), bytes(range(256)) * (BIG >> 8)
    artefacts.write("a.bin", content)
    assert artefacts.read("a.bin") == content


# -- a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(base, tmp_path_factory) -> tuple[Store, list[Outcome]]:
    """DataDream and Real Only, run once on a disk."""
    here = Store(str(tmp_path_factory.mktemp("out")))
    return here, tiny.execute(tiny.both(base), here)[0]


def test_a_run_on_s3_gives_what_it_gives_on_a_disk_and_resumes(base, done, bucket):
    here, outcomes = done
    there = Store(f"{bucket}/run")
    runs = tiny.both(base)
    found, _ = tiny.execute(runs, there)
    assert found == outcomes
    parts = [f"{found[0].images}/part-{k:05d}.parquet" for k in range(3)]
    sums = _sums(there, parts)
    assert sums.equals(_sums(here, parts))
    assert len(set(sums["sha1"].to_pylist())) == 12
    weights = f"{found[0].adapter}/{tiny.WEIGHTS}"
    assert there.read(weights) == here.read(weights)
    assert tiny.accuracies(found, there) == tiny.accuracies(outcomes, here)

    there.delete(parts[1])
    _, told = tiny.execute(runs, there)
    assert [receipt.target for receipt in told.done] == [parts[1]]
    assert _sums(there, parts).equals(sums)


def _sums(artefacts: Store, parts: list[str]) -> pa.Table:
    return pa.concat_tables([artefacts.read_table(part, columns=["request_id", "sha1"]) for part in parts])


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(600)
def test_ray_on_s3_gives_what_a_loop_gives_on_a_disk(base, done, bucket):
    import ray

    from bob import cluster, pipeline

    here, outcomes = done
    there = Store(f"{bucket}/ray")
    try:
        found = pipeline.execute(
            [base], artefacts=there, executor=cluster.execute, report=lambda step, todo, done, receipts: receipts
        )
    finally:
        ray.shutdown()
    assert found == outcomes[:1]
    parts = [f"{found[0].images}/part-{k:05d}.parquet" for k in range(3)]
    assert _sums(there, parts).equals(_sums(here, parts))
    weights = f"{found[0].adapter}/{tiny.WEIGHTS}"
    assert there.read(weights) == here.read(weights)
    assert tiny.accuracies(found, there) == tiny.accuracies(outcomes[:1], here)
