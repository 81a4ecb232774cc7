"""The protocol's text, sentence by sentence: each MUST and SHOULD for servers is quoted where it is obeyed, and tested.

The sentences are those of protocol.md 1.0.0. Not here: what clients must do, MAY, and checksum-trailer, which is not
offered because no ASGI server hands trailers on.
"""

import re
from pathlib import Path

import pytest

import tusd_py

TESTS = Path(__file__).parent.parent

# A sentence, or the part of it that is for servers, and a test that fails when it is not obeyed.
TEXT = {
    # Core
    "The value MUST be a non-negative integer.": "test_parse_integer_refuses",
    "The list MUST be sorted by Server's preference": "test_described",
    "The `Tus-Resumable` header MUST be included in every request and response except for `OPTIONS` requests.": (
        "test_tus_resumable_is_on_every_answer"
    ),
    "The value MUST be the version of the protocol used by the Client or the Server.": "test_described",
    "If the version specified by the Client is not supported by the Server, it MUST respond with the `412 Precondition"
    " Failed` status and MUST include the `Tus-Version` header into the response.": "test_read_refuses",
    "In addition, the Server MUST NOT process the request.": "test_read_refuses",
    "If no extensions are supported, the `Tus-Extension` header MUST be omitted.": (
        "test_described_leaves_out_what_there_is_not"
    ),
    "The Server SHOULD set this header if there is a known hard limit.": "test_described",
    "The `X-HTTP-Method-Override` request header MUST be a string which MUST be interpreted as the request's method by"
    " the Server, if the header is presented. The actual method of the request MUST be ignored.": "test_read",
    "The Server MUST always include the `Upload-Offset` header in the response for a `HEAD` request": "test_inspected",
    "If the size of the upload is known, the Server MUST include the `Upload-Length` header": "test_inspected",
    "If the resource is not found, the Server SHOULD return either the `404 Not Found`, `410 Gone` or `403 Forbidden`"
    " status without the `Upload-Offset` header.": "test_what_is_no_upload_is_404",
    "The Server SHOULD acknowledge successful `HEAD` requests with a `200 OK` or `204 No Content` status.": (
        "test_inspected"
    ),
    "The Server MUST prevent the client and/or proxies from caching the response by adding the"
    " `Cache-Control: no-store` header to the response.": "test_inspected",
    "The Server SHOULD accept `PATCH` requests against any upload URL and apply the bytes contained in the message at"
    " the given offset specified by the `Upload-Offset` header.": "test_an_upload_from_creation_to_the_download",
    "All `PATCH` requests MUST use `Content-Type: application/offset+octet-stream`": "test_read_refuses",
    "otherwise the server SHOULD return a `415 Unsupported Media Type` status": "test_read_refuses",
    "The `Upload-Offset` header's value MUST be equal to the current offset of the resource.": (
        "test_a_patch_at_another_offset_is_409_with_the_true_one"
    ),
    "If the offsets do not match, the Server MUST respond with the `409 Conflict` status without modifying the upload"
    " resource.": "test_a_patch_at_another_offset_is_409_with_the_true_one",
    "The Server MUST acknowledge successful `PATCH` requests with the `204 No Content` status. It MUST include the"
    " `Upload-Offset` header containing the new offset.": "test_appended",
    "The new offset MUST be the sum of the offset before the `PATCH` request and the number of bytes received and"
    " processed or stored during the current `PATCH` request.": "test_a_connection_cut_anywhere_leaves_exact_bytes",
    "If the server receives a `PATCH` request against a non-existent resource it SHOULD return a `404 Not Found`"
    " status.": "test_what_is_no_upload_is_404",
    "A timeout SHOULD be handled by closing the underlying connection.": "test_a_client_that_falls_silent_is_let_go",
    "The Server SHOULD always attempt to store as much of the received data as possible.": (
        "test_a_client_that_goes_away_keeps_every_byte"
    ),
    "MUST contain the `Tus-Version` header.": "test_described",
    "the Server MUST ignore the header.": "test_read",
    # Creation
    "The `Upload-Metadata` request and response header MUST consist of one or more comma-separated key-value pairs.": (
        "test_parse_metadata_refuses"
    ),
    "The key and value MUST be separated by a space.": "test_parse_metadata_refuses",
    "The key MUST NOT contain spaces and commas and MUST NOT be empty. The key SHOULD be ASCII encoded": (
        "test_parse_metadata_refuses"
    ),
    "the value MUST be Base64 encoded": "test_parse_metadata_refuses",
    "All keys MUST be unique.": "test_parse_metadata_refuses",
    "Servers SHOULD carefully validate metadata values or sanitize them before using them as header values to avoid"
    " header smuggling.": "test_no_metadata_makes_a_header_of_its_own",
    "The request MUST include one of the following headers:": "test_read_refuses",
    "If the `Upload-Defer-Length` header contains any other value than `1` the server should return a `400 Bad Request`"
    " status.": "test_read_refuses",
    "Once set the length MUST NOT be changed.": "test_a_length_that_cannot_be_is_refused",
    "As long as the length of the upload is not known, the Server MUST set `Upload-Defer-Length: 1` in all responses to"
    " `HEAD` requests.": "test_inspected_without_length_metadata_and_expiry",
    "Such an upload is immediately complete after its creation": "test_an_empty_upload_is_complete_at_once",
    "responses to `HEAD` requests MUST include the `Upload-Metadata` header and its value as specified by the Client"
    " during the creation.": "test_inspected",
    "If the length of the upload exceeds the maximum, which MAY be specified using the `Tus-Max-Size` header, the"
    " Server MUST respond with the `413 Request Entity Too Large` status.": "test_too_much_is_413_and_changes_nothing",
    "The Server MUST acknowledge a successful upload creation with the `201 Created` status.": "test_created",
    "The Server MUST set the `Location` header to the URL of the created resource.": "test_created",
    # Creation With Upload
    "The Server SHOULD accept as many bytes as possible and MUST include the `Upload-Offset` header in the response": (
        "test_creation_can_bring_the_first_bytes"
    ),
    # Expiration
    "This header MUST be included in every `PATCH` response if the upload is going to expire. If the expiration is"
    " known at the creation, the `Upload-Expires` header MUST be included in the response to the initial `POST`"
    " request.": ("test_created"),
    "If a Client does attempt to resume an upload which has since been removed by the Server, the Server SHOULD respond"
    " with the `404 Not Found` or `410 Gone` status.": "test_uploads_that_expired_are_410_and_swept",
    "The value of the `Upload-Expires` header MUST be in RFC 9110 datetime format.": "test_build_http_date",
    # Checksum
    "Once the entire request has been received, the Server MUST verify the uploaded chunk against the provided checksum"
    " using the specified algorithm.": "test_a_body_with_the_right_checksum_is_recorded",
    "`400 Bad Request` if the checksum algorithm is not supported by the server": (
        "test_an_algorithm_that_is_not_known_is_400_and_records_nothing"
    ),
    "In the first two cases the uploaded chunk MUST be discarded, and the upload and its offset MUST NOT be updated.": (
        "test_a_body_with_a_wrong_checksum_is_discarded_and_nothing_else"
    ),
    "The Server MUST support at least the SHA1 checksum algorithm identified by `sha1`.": "test_parse_checksum",
    "The names of the checksum algorithms MUST only consist of ASCII characters with the modification that uppercase"
    " characters are excluded.": "test_parse_checksum_refuses",
    "The `Tus-Checksum-Algorithm` header MUST be included in the response to an `OPTIONS` request.": (
        "test_described_tells_the_checksums"
    ),
    "The header MUST consist of the name of the used checksum algorithm and the Base64 encoded checksum separated by a"
    " space.": "test_parse_checksum_refuses",
    # Termination
    "When receiving a `DELETE` request for an existing upload the Server SHOULD free associated resources": (
        "test_delete_ends_a_running_patch"
    ),
    "MUST respond with the `204 No Content` status": "test_terminated",
    "For all future requests to this URL, the Server SHOULD respond with the `404 Not Found` or `410 Gone` status.": (
        "test_a_terminated_upload_is_gone"
    ),
    # Concatenation
    "The Server SHOULD NOT process these partial uploads until they are concatenated": (
        "test_a_concatenation_is_told_its_parts_are_not"
    ),
    "The length of the final upload MUST be the sum of the length of all partial uploads.": (
        "test_the_length_of_the_final_upload_is_that_of_its_parts_together"
    ),
    "The partial uploads MUST be concatenated as per the order specified in the list.": (
        "test_parts_are_concatenated_in_the_order_of_the_list"
    ),
    "the partial uploads' metadata SHALL NOT be transferred to the new final upload.": (
        "test_parts_are_concatenated_in_the_order_of_the_list"
    ),
    "The Server MUST respond with the `403 Forbidden` status to `PATCH` requests against a final upload URL and MUST"
    " NOT modify the final or its partial uploads.": "test_a_final_upload_takes_no_bytes",
    "After successful concatenation, the `Upload-Offset` and `Upload-Length` MUST be set and their values MUST be"
    " equal.": "test_parts_are_concatenated_in_the_order_of_the_list",
    "Response to `HEAD` request against partial or final upload MUST include the `Upload-Concat` header and its value"
    " as received in the upload creation request.": "test_inspected_echoes_concat_as_received",
    "If the upload is a partial one, the header value MUST be `partial`. In the case of a final upload, its value MUST"
    " be `final` followed by a semicolon and a space-separated list of partial upload URLs": (
        "test_parse_concat_refuses"
    ),
}


def words(folder: Path) -> str:
    """Return all Python of a folder with comment signs and line ends taken out, so that a quotation is one text."""
    text = "\n".join(path.read_text() for path in sorted(folder.rglob("*.py")))
    return " ".join(re.sub(r"^\s*#", "", text, flags=re.MULTILINE).split())


CODE = words(Path(tusd_py.__file__).parent)
FUNCTIONS = set(re.findall(r"def (test_\w+)", words(TESTS)))


@pytest.mark.parametrize("sentence", TEXT)
def test_the_sentence_is_quoted_where_it_is_obeyed(sentence: str) -> None:
    assert sentence in CODE


@pytest.mark.parametrize("test", sorted(set(TEXT.values())))
def test_the_test_exists(test: str) -> None:
    assert test in FUNCTIONS
