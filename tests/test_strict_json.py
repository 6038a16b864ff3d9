"""Strict JSON: what it refuses, that it agrees with the standard library otherwise, and that it is linear."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counter.errors import InvalidRequest
from counter.strict_json import MAX_DEPTH, decode

MIB = 1024 * 1024
INT = st.integers(-(10**19) + 1, 10**19)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | INT | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def depth(value):
    if isinstance(value, list | dict):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@pytest.mark.slow
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_it_reads_what_json_writes(value, ascii_only, indent):
    if depth(value) <= MAX_DEPTH:
        assert decode(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(st.binary(max_size=40) | st.text('[]{}",:\\u0d8e1.-tn ', max_size=30).map(str.encode))
def test_it_never_fails_otherwise(body):
    try:
        value = decode(body)
    except InvalidRequest as error:
        error.detail.encode()
    else:
        assert json.loads(body) == value


@pytest.mark.parametrize("around", ["[%s]", '{"a": %s}'])
def test_depth(around):
    def nested(levels):
        text = "1"
        for _ in range(levels):
            text = around % text
        return text.encode()

    assert decode(nested(MAX_DEPTH))
    with pytest.raises(InvalidRequest, match="nested"):
        decode(nested(MAX_DEPTH + 1))
    with pytest.raises(InvalidRequest, match="nested"):
        decode(b'{"x": "]]]]]]]]\\"]]]]]]]]]]]]", "y": ' + nested(MAX_DEPTH) + b"}")


@pytest.mark.parametrize(
    "text",
    [
        '"' + "[" * 50 + '"',
        '"' + r"\"[{" * 50 + '"',
        r'["\\", "[[[[[[[[[[[[[[[[[[[["]',
        "[" + "[]," * 500 + "[]]",
    ],
)
def test_brackets_that_are_not_nesting(text):
    assert decode(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "body",
    [
        b"]" * 50 + b"[" * 100,
        b"1" + b"}" * 50 + b"{" * 100,
        b'"\\' + b"[" * 100,
        b"[" * 5 + b'"' + b"[" * 100,
    ],
)
def test_unbalanced_brackets_are_refused_before_anything_recursive(body):
    with pytest.raises(InvalidRequest):
        decode(body)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        r'{"a":1,"\u0061":2}',
        '{"":1,"":2}',
        '[{"x":{"é":1,"\\u00e9":2}}]',
        r'{"\n":1,"\u000a":2}',
        r'{"🐸":1,"\ud83d\udc38":2}',
    ],
)
def test_a_key_given_twice(text):
    with pytest.raises(InvalidRequest, match="twice"):
        decode(text.encode())


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"A":1}', '[{"a":1},{"a":1}]', '{"a":{"a":1}}', r'{"a":1,"\\u0061":2}', '{"e\u0301":1,"é":2}'],
)
def test_keys_that_are_not_the_same(text):
    assert decode(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        r'"\ud800"',
        r'"\udfff"',
        r'"\ud800A"',
        r'"\udc00\ud800"',
        r'{"\uD8aB": 1}',
        r'["a", {"b": ["\ud800"]}]',
    ],
)
def test_half_a_surrogate_pair(text):
    with pytest.raises(InvalidRequest, match="surrogate"):
        decode(text.encode())


NO_INTEGERS = [
    "1.0",
    "1e3",
    "-0.0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1" * 21,
    "1." + "1" * 5000,
    "-" + "1" * 20,
]


@pytest.mark.parametrize("number", NO_INTEGERS, ids=lambda text: text[:20])
@pytest.mark.parametrize("around", ["%s", "[%s]", '{"a": [%s]}'])
def test_numbers_that_are_no_integers_are_refused_wherever_they_stand(around, number):
    with pytest.raises(InvalidRequest, match=r"integers|64 bits") as refusal:
        decode((around % number).encode())
    assert len(refusal.value.detail) < 150


@pytest.mark.parametrize("text", [r'"\ud83d\ude00"', r'"\\ud800"', r'"\u00e9"'])
def test_whole_pairs_and_what_only_looks_like_one(text):
    assert decode(text.encode()) == json.loads(text)


def repeat(piece, before=b"", after=b""):
    return before + piece * ((MIB - len(before) - len(after)) // len(piece)) + after


HOSTILE = {
    "open arrays": repeat(b"["),
    "open objects": repeat(b'{"":'),
    "closed arrays": repeat(b"]"),
    "pairs of brackets": repeat(b"[],", b"[", b"1]"),
    "unclosed pairs": repeat(b"[]"),
    "many keys": b"{" + b",".join(b'"%x":1' % i for i in range(100_000)) + b"}",
    "the same key": repeat(b'"":1,', b"{", b'"":1}'),
    "the same key in many objects": repeat(b'{"a":1,"a":1},', b"[", b"1]"),
    "empty objects": repeat(b"{},", b"[", b"1]"),
    "a long string": repeat(b"a", b'"', b'"'),
    "a long open string": repeat(b"a", b'"'),
    "escaped quotes": repeat(rb"\"", b'"', b'"'),
    "escaped quotes, open": repeat(rb"\"", b'"'),
    "brackets and escaped quotes, open": repeat(rb"\"[", b"[" * 20 + b'"'),
    "backslashes": repeat(b"\\", b'"'),
    "unicode escapes": repeat(rb"\u0061", b'"', b'"'),
    "half pairs": repeat(rb"\ud800", b'"', b'"'),
    "half pairs in many strings": repeat(rb'"\ud800",', b"[", b"1]"),
    "empty strings": repeat(b'"",', b"[", b"1]"),
    "quotes": repeat(b'"'),
    "digits": repeat(b"1"),
    "digits of a fraction": repeat(b"1", b"1."),
    "an exponent": repeat(b"9", b"1e"),
    "many numbers": repeat(b"123456789012345678,", b"[", b"1]"),
    "minus signs": repeat(b"-"),
    "white space": repeat(b" ", b"", b"1"),
    "bad UTF-8 at the end": repeat(b"a", b'"', b'\xff"'),
    "wide characters": repeat("🐸".encode(), b'"', b'"'),
}


@pytest.mark.slow
@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_a_mebibyte_of_anything_takes_no_time(body):
    assert 0.6 * MIB < len(body) <= MIB or body == HOSTILE["many keys"]
    began = time.process_time()
    try:
        decode(body)
    except InvalidRequest as error:
        assert len(error.detail) < 300
    assert time.process_time() - began < 1.0
