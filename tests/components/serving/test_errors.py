"""Conversion and logging of unexpected exceptions."""

from __future__ import annotations

import logging

from kerasline.components.serving.runtime.errors import RequestError, from_exception


def failed(work) -> RequestError:
    try:
        work()
    except Exception as error:
        return from_exception(error)


def test_unexpected_error_is_internal_and_logged_once(caplog):
    def work():
        return {}["nothing here"]

    with caplog.at_level(logging.ERROR):
        answers = [failed(work) for _ in range(3)]
    assert [(answer.code, answer.http_status) for answer in answers] == [("INTERNAL", 500)] * 3
    (record,) = caplog.records
    assert "in work" in record.getMessage() and "KeyError: 'nothing here'" in record.getMessage()


def test_client_errors_are_not_logged(caplog):
    def refuse():
        raise RequestError("INVALID_ARGUMENT", "no")

    with caplog.at_level(logging.ERROR):
        assert failed(refuse).code == "INVALID_ARGUMENT"
    assert not caplog.records


def test_message_that_quotes_bytes_of_the_request_is_the_clients_fault(caplog):
    import tensorflow as tf

    header = tf.audio.encode_wav([[0.5]], 8000).numpy()[:12]
    with caplog.at_level(logging.ERROR):
        answer = failed(lambda: tf.audio.decode_wav(header + b"\xff\xfe\xfd\xfc" + b"\0" * 40))
    assert (answer.code, answer.http_status) == ("INVALID_ARGUMENT", 400)
    assert not caplog.records
