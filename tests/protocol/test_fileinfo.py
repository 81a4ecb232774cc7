"""tusd's JSON."""

import json

from tusd_py.protocol.fileinfo import build_hook
from tusd_py.protocol.messages import Request
from tusd_py.protocol.upload import Upload


def test_the_hook_is_what_tusd_posts() -> None:
    """Field for field; the uploader's credentials stay out."""
    upload = Upload(id="a1", length=3, offset=3, metadata="filename w6kubXA0,x /w==", created_at=0.0)
    storage = {"Type": "filestore", "Path": "/up/a1", "InfoPath": "/up/a1.info"}
    headers = {"host": ("example.org",), "x-request-id": ("1", "2"), "authorization": ("Bearer x",), "cookie": ("y",)}
    request = Request("PATCH", "a1", headers, "/files/", uri="/files/a1?q", remote_addr="10.0.0.1:5")

    assert {
        "Type": "post-finish",
        "Event": {
            "Upload": {
                "ID": "a1",
                "Size": 3,
                "SizeIsDeferred": False,
                "Offset": 3,
                "MetaData": {"filename": "é.mp4", "x": "\N{REPLACEMENT CHARACTER}"},
                "IsPartial": False,
                "IsFinal": False,
                "PartialUploads": None,
                "Storage": storage,
            },
            "HTTPRequest": {
                "Method": "PATCH",
                "URI": "/files/a1?q",
                "RemoteAddr": "10.0.0.1:5",
                "Header": {"Host": ["example.org"], "X-Request-Id": ["1", "2"]},
            },
        },
    } == json.loads(build_hook("post-finish", upload, storage, request))


def test_a_hook_of_a_recovered_upload_says_so() -> None:
    """Nobody's request caused it; receivers made for tusd find all the fields that they know."""
    upload = Upload(id="a1", length=0, offset=0, metadata="", created_at=0.0)
    hook = json.loads(build_hook("post-finish", upload, {}, None))

    assert True is hook["Recovered"]
    assert {"Method": "", "URI": "", "RemoteAddr": "", "Header": {}} == hook["Event"]["HTTPRequest"]
