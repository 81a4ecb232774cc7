"""Sidecars, ours and tusd's, read back into uploads."""

import json

import pytest

from tusd_py.protocol.fileinfo import Sidecar, build_sidecar, parse_sidecar
from tusd_py.protocol.upload import Upload

STORAGE = {"Type": "filestore", "Path": "/up/a1", "InfoPath": "/up/a1.info"}

# As tusd 2 writes it.
TUSD = {
    "ID": "a1",
    "Size": 10,
    "SizeIsDeferred": False,
    "Offset": 0,
    "MetaData": {"filename": "é.mp4", "empty": ""},
    "IsPartial": False,
    "IsFinal": False,
    "PartialUploads": None,
    "Storage": STORAGE,
}


@pytest.mark.parametrize(
    "upload",
    [
        Upload(id="a1", length=10, offset=4, metadata="filename YQ==,x", created_at=12.5),
        Upload(id="a1", length=None, offset=4, metadata="", created_at=12.5, concat="partial"),
        Upload(id="a1", length=4, offset=4, metadata="", created_at=12.5, concat="final;/files/b  /files/c"),
    ],
)
def test_what_was_written_is_read_again(upload: Upload) -> None:
    assert Sidecar(upload=upload, is_ours=True, acknowledged=4) == parse_sidecar(
        build_sidecar(upload, STORAGE), 100, 0.0
    )


def test_in_a_folder_of_tusds_the_size_is_the_offset() -> None:
    upload = Upload(id="a1", length=10, offset=7, metadata="filename w6kubXA0,empty", created_at=99.0)

    assert Sidecar(upload=upload, is_ours=False, acknowledged=0) == parse_sidecar(json.dumps(TUSD), 7, 99.0)


@pytest.mark.parametrize(
    ("kind", "concat"),
    [({"IsPartial": True}, "partial"), ({"IsFinal": True, "PartialUploads": ["b", "c"]}, "final;b c")],
)
def test_tusds_concatenations_are_taken_over(kind: dict[str, object], concat: str) -> None:
    assert concat == parse_sidecar(json.dumps(TUSD | kind), 10, 0.0).upload.concat


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "3",
        "{}",
        json.dumps(TUSD | {"ID": "../a"}),
        json.dumps(TUSD | {"Size": 6}),
        json.dumps(TUSD | {"Size": "x"}),
        json.dumps(TUSD | {"MetaData": 3}),
    ],
)
def test_what_is_no_sidecar_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_sidecar(text, 7, 0.0)
