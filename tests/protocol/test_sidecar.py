"""Sidecars, ours and tusd's, read back into uploads."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.protocol.fields import MAX_METADATA
from tusd_py.protocol.fileinfo import Sidecar, build_fileinfo, build_sidecar, parse_sidecar
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
    assert Sidecar(upload=upload, changed_at=0.0, is_ours=True, acknowledged=4) == parse_sidecar(
        build_sidecar(upload, STORAGE), 100, 0.0
    )


def test_in_a_folder_of_tusds_the_size_is_the_offset() -> None:
    upload = Upload(id="a1", length=10, offset=7, metadata="filename w6kubXA0,empty", created_at=99.0)

    assert Sidecar(upload=upload, changed_at=99.0, is_ours=False, acknowledged=0) == parse_sidecar(
        json.dumps(TUSD), 7, 99.0
    )


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


def text(**fields: object) -> str:
    """Return one of tusd's with other fields."""
    return json.dumps(TUSD | fields)


def ours(own: object, **fields: object) -> str:
    """Return one of ours with other fields."""
    return text(TusdPy=own, **fields)


OWN = {"CreatedAt": 1.0, "UploadMetadata": "", "UploadConcat": ""}


def test_metadata_that_no_header_can_have_is_left_out_and_named() -> None:
    """What is left fits into what a client may send, so that it can be read back."""
    metadata = {
        "first": "x" * 12000,
        "naïve": "1",
        "with space": "2",
        "with,comma": "3",
        "": "4",
        "tab\t": "5",
        "number": 6,
        "half": "\ud800",
        "too large": "7",
        "long": "y" * 12000,
        "last": "ok",
    }
    sidecar = parse_sidecar(text(MetaData=metadata | {"first": "x" * 9000}), 7, 0.0)

    assert ["first", "last"] == [pair.split(" ")[0] for pair in sidecar.upload.metadata.split(",")]
    assert len(sidecar.upload.metadata) <= MAX_METADATA
    assert (
        ("'naïve'", "'with space'", "'with,comma'", "''", "'tab\\t'", "'number'", "'half'", "'too large'", "'long'")
    ) == sidecar.left_out

    build_fileinfo(sidecar.upload, STORAGE)


@pytest.mark.parametrize("length", [12286, 12285, 12284])
def test_metadata_up_to_the_limit_is_kept(length: int) -> None:
    sidecar = parse_sidecar(text(MetaData={"a": "x" * length}), 7, 0.0)

    assert (len(sidecar.upload.metadata) > 0) is (not sidecar.left_out)
    assert len(sidecar.upload.metadata) <= MAX_METADATA


def test_metadata_of_any_size_is_read_back() -> None:
    upload = Upload(id="a1", length=10, offset=4, metadata="a " + "A" * 20000, created_at=1.0)

    assert upload == parse_sidecar(build_sidecar(upload, STORAGE), 10, 0.0).upload


@pytest.mark.parametrize("parts", [[], ["a b"], ["../x", ""], ["a"] * 1001, [3, None, "é"]])
def test_parts_that_no_header_can_name_are_left_out(parts: list[object]) -> None:
    """The upload has its bytes all the same."""
    sidecar = parse_sidecar(text(IsFinal=True, PartialUploads=parts), 10, 0.0)

    assert ("", ("'PartialUploads'",)) == (sidecar.upload.concat, sidecar.left_out)


@pytest.mark.parametrize(
    ("path", "info_path"),
    [
        ("/up/a1", "/up/a1.info"),
        ("/srv/tusd/a1", "/srv/tusd/a1.info"),
        ("./data/a1", "data/a1.info"),
        ("a1", ""),
        ("C:\\data\\a1", "C:\\data\\a1.info"),
        ("", ""),
    ],
)
def test_bytes_beside_their_info_are_found_wherever_the_folder_was(path: str, info_path: str) -> None:
    storage = {"Type": "filestore", "Path": path, "InfoPath": info_path}

    assert 7 == parse_sidecar(text(Storage=storage), 7, 0.0).upload.offset


@pytest.mark.parametrize(
    ("path", "info_path"), [("/up/video.mp4", "/up/a1.info"), ("/other/a1", "/up/a1.info"), ("sub/b", "")]
)
def test_bytes_elsewhere_are_not_taken_for_those_that_are_here(path: str, info_path: str) -> None:
    with pytest.raises(ValueError, match="elsewhere"):
        parse_sidecar(text(Storage={"Path": path, "InfoPath": info_path}), 7, 0.0)


def test_a_sidecar_without_a_place_or_a_time_is_taken_as_it_is() -> None:
    assert 7 == parse_sidecar(text(Storage=None), 7, 5.0).upload.offset
    assert 5.0 == parse_sidecar(ours({"UploadMetadata": ""}), 7, 5.0).upload.created_at


def test_what_was_acknowledged_is_known_though_the_bytes_are_gone() -> None:
    sidecar = parse_sidecar(ours(OWN, Offset=5), 3, 0.0)

    assert (3, 5) == (sidecar.upload.offset, sidecar.acknowledged)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ("[" * 100_000, "too deep"),
        (text(Size=True), "Size is True"),
        (text(Size=10.0), "Size"),
        (text(Size=2**63), "Size is 9223372036854775808"),
        (text(Size=-1), "Size is -1"),
        (text().replace('"Size": 10', '"Size": NaN'), "NaN"),
        (text().replace('"Size": 10', '"Size": -Infinity'), "Infinity"),
        (text().replace('"Size": 10', '"Size": 1e999'), "Size is inf"),
        (text(SizeIsDeferred=None), "SizeIsDeferred"),
        (text(SizeIsDeferred=0), "SizeIsDeferred"),
        (text(IsFinal="x"), "IsFinal"),
        (text(IsPartial=1), "IsPartial"),
        (text(IsFinal=True, PartialUploads="b"), "PartialUploads"),
        (text(ID=None), "ID"),
        (text(ID=["a1"]), "ID"),
        (text(MetaData=["a"]), "MetaData"),
        (text(Storage="here"), "Storage"),
        (text(Storage={"Path": 3}), "Path"),
        (ours(None), "TusdPy"),
        (ours([]), "TusdPy"),
        (ours({}), "UploadMetadata"),
        (ours(OWN | {"UploadMetadata": "a\r\nb: c"}), "key"),
        (ours(OWN | {"UploadMetadata": None}), "UploadMetadata"),
        (ours(OWN | {"UploadConcat": "x"}), "partial, or final"),
        (ours(OWN | {"CreatedAt": "now"}), "CreatedAt"),
        (ours(OWN | {"CreatedAt": True}), "CreatedAt"),
        (ours(OWN | {"CreatedAt": -1}), "CreatedAt"),
        (ours(OWN | {"CreatedAt": 1e300}), "CreatedAt"),
        (ours(OWN, Offset=11), "11 of 10"),
        (ours(OWN, Offset=False), "Offset"),
    ],
)
def test_what_does_not_tell_is_said_so(info: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_sidecar(info, 7, 0.0)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_a_field_of_any_kind_ends_in_an_upload_or_a_value_error(value: object) -> None:
    for key in (*TUSD, "TusdPy"):
        for own in ({}, {"TusdPy": OWN}):
            with suppress(ValueError):
                sidecar = parse_sidecar(json.dumps(TUSD | own | {key: value}), 7, 0.0)
                build_fileinfo(sidecar.upload, STORAGE)
