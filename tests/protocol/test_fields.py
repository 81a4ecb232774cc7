"""Header values, one row each."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.protocol import fields


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("007", 7), ("9223372036854775807", 2**63 - 1)])
def test_parse_integer(text: str, value: int) -> None:
    assert value == fields.parse_integer(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "+1",
        "-0",
        "-1",
        "1_0",
        "1.0",
        "1e3",
        "0x1",
        "\N{FULLWIDTH DIGIT ONE}",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "9223372036854775808",
        "00000000000000000001",
        "1\n",
    ],
)
def test_parse_integer_refuses(text: str) -> None:
    """Only 1 to 19 ASCII digits below 2^63 are a number."""
    with pytest.raises(ValueError, match="digits"):
        fields.parse_integer(text)


@given(st.integers(0, 2**63 - 1))
def test_parse_integer_reads_what_str_writes(value: int) -> None:
    assert value == fields.parse_integer(str(value))


@given(st.text())
def test_parse_integer_takes_any_text(text: str) -> None:
    """It returns a number in range or raises ValueError, nothing else."""
    with suppress(ValueError):
        assert 0 <= fields.parse_integer(text) <= fields.MAX_INTEGER


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("a" * 32, True),
        ("A-_9", True),
        ("", False),
        ("a/b", False),
        ("..", False),
        ("a.info", False),
        ("a" * 129, False),
    ],
)
def test_is_upload_id(text: str, valid: bool) -> None:
    """An id is a file name and no path; with a dot it could be a sidecar."""
    assert valid is fields.is_upload_id(text)


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("", {}),
        ("  ", {}),
        ("filename aGVsbG8=", {"filename": b"hello"}),
        ("a YQ==,b", {"a": b"a", "b": b""}),
        ("a YQ==, b YmI=", {"a": b"a", "b": b"bb"}),
        ("is_confidential ", {"is_confidential": b""}),
        ("x AP8=", {"x": b"\x00\xff"}),
        ("relativePath bnVsbA==,name w6k=", {"relativePath": b"null", "name": "é".encode()}),
    ],
)
def test_parse_metadata(text: str, metadata: dict[str, bytes]) -> None:
    assert metadata == fields.parse_metadata(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (",", "key"),
        ("a YQ==,", "key"),
        (" ,a YQ==", "key"),
        ("a YQ==,a Yg==", "twice"),
        ("a YQ", "Base64"),
        ("a Y Q==", "Base64"),
        ("a YQ==\x00", "Base64"),
        ("a YQ-_", "Base64"),
        ("a é", "Base64"),
        ("é YQ==", "key"),
        ("a\tb YQ==", "key"),
    ],
)
def test_parse_metadata_refuses(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fields.parse_metadata(text)


@given(st.text())
def test_parse_metadata_takes_any_text(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(fields.parse_metadata(text), dict)


def test_build_http_date() -> None:
    """The date of RFC 9110's own example."""
    assert "Sun, 06 Nov 1994 08:49:37 GMT" == fields.build_http_date(784111777)


@pytest.mark.parametrize(
    ("metadata", "content_type", "disposition"),
    [
        ({}, "application/octet-stream", "attachment"),
        ({"filetype": b"video/mp4"}, "video/mp4", "inline"),
        ({"type": b"Image/PNG "}, "image/png", "inline"),
        ({"filetype": b"text/html"}, "application/octet-stream", "attachment"),
        ({"filetype": b"image/svg+xml"}, "application/octet-stream", "attachment"),
        ({"filetype": b"video/mp4\r\nX: y"}, "application/octet-stream", "attachment"),
        ({"filetype": b"\xff"}, "application/octet-stream", "attachment"),
        (
            {"filename": b"a.mp4"},
            "application/octet-stream",
            "attachment; filename=\"a.mp4\"; filename*=UTF-8''a.mp4",
        ),
        (
            {"name": 'é"\\ü\r\n;.mp4'.encode(), "filetype": b"video/mp4"},
            "video/mp4",
            "inline; filename=\"_;.mp4\"; filename*=UTF-8''%C3%BC%3B.mp4",
        ),
        (
            {"filename": b"../../etc/passwd"},
            "application/octet-stream",
            "attachment; filename=\"passwd\"; filename*=UTF-8''passwd",
        ),
        ({"filename": b"folder/"}, "application/octet-stream", "attachment"),
        (
            {"filename": b'a"b%41.mp4'},
            "application/octet-stream",
            "attachment; filename=\"a_b_41.mp4\"; filename*=UTF-8''a%22b%2541.mp4",
        ),
    ],
)
def test_what_a_browser_is_told_about_a_file(metadata: dict[str, bytes], content_type: str, disposition: str) -> None:
    """A name or a type from the net is never a path, a header or something that runs."""
    assert content_type == fields.build_content_type(metadata)
    assert disposition == fields.build_content_disposition(metadata)


@given(st.dictionaries(st.sampled_from(["filename", "filetype", "name", "type"]), st.binary()))
def test_no_metadata_makes_a_header_of_its_own(metadata: dict[str, bytes]) -> None:
    """Whatever was uploaded, the header is printable ASCII."""
    text = fields.build_content_disposition(metadata)

    assert text.isascii()
    assert text.isprintable()


SHA1 = "Kq5sNclPz7QV2+lfQIuc6R7oRu0="


def test_parse_checksum() -> None:
    """The protocol's own example."""
    assert ("sha1", bytes.fromhex("2aae6c35c94fcfb415dbe95f408b9ce91ee846ed")) == fields.parse_checksum(f"sha1 {SHA1}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names ''"),
        (f"SHA1 {SHA1}", "names 'SHA1'"),
        (f"crc32 {SHA1}", "knows sha1, md5, sha256, sha512"),
        ("sha1", "has 0 bytes, sha1 has 20"),
        (f"md5 {SHA1}", "has 20 bytes, md5 has 16"),
        (f"sha1 {SHA1[:-1]}", "not Base64"),
        ("sha1 é", "not Base64"),
    ],
)
def test_parse_checksum_refuses(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fields.parse_checksum(text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("partial", ()),
        ("final;/files/a /files/b", ("a", "b")),
        ("final;https://host/videos/files/a?x=1 b /files/a", ("a", "b", "a")),
    ],
)
def test_parse_concat(text: str, ids: tuple[str, ...]) -> None:
    assert ids == fields.parse_concat(text)


@pytest.mark.parametrize("text", ["", "Partial", "final", "final;", "final; ", "final;/files/ /files/b", "final;a/.."])
def test_parse_concat_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        fields.parse_concat(text)


def test_parse_concat_refuses_too_many_parts() -> None:
    with pytest.raises(ValueError, match="at most 1000"):
        fields.parse_concat("final;" + " ".join(["a"] * 1001))


@given(st.text())
def test_parsers_take_any_text(text: str) -> None:
    for parse in (fields.parse_checksum, fields.parse_concat):
        with suppress(ValueError):
            parse(text)
        with suppress(ValueError):
            parse("final;" + text)
