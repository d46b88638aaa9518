"""Cases of schema/vectors.json that depend on the payload alone: its canonical form, its limits, its version.

Used by make_vectors.py alone. A payload is written as text wherever its exact bytes matter.
"""

from __future__ import annotations

import json

from vector_material import (
    SECOND_TOKEN,
    WIDE_TOKEN,
    Case,
    event,
    event_of_size,
    event_of_values,
    line,
    raw,
    raw_data,
    repeated_char,
    text,
    with_data,
    without,
)


def canonical_cases() -> list[Case]:
    """Return cases of the canonical form, the signed bytes."""
    astral = '"\U0001f600":1,"\ue000":2,"a":3,"\uffee":4,"\u00e9":5,"":6,"B":7'
    rfc_keys = '"\\u20ac":"Euro Sign","\\r":"Carriage Return","\\ufb33":"Hebrew Letter Dalet With Dagesh",'
    rfc_keys += '"1":"One","\\ud83d\\ude00":"Emoji","\\u0080":"Control","\\u00f6":"Latin Small Letter O With Diaeresis"'
    numbers = "5e-324,1.7976931348623157e308,9007199254740992.0,295147905179352830000.0,1e21,999999999999999900000.0,"
    numbers += "9.999999999999997e22,0.000001,1e-7,333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001"
    controls = '"' + "".join(f"\\u{number:04x}" for number in range(1, 32)) + '"'
    depth_64 = '"x":' + "[" * 62 + "]" * 62
    pretty = json.dumps(event(), indent=2).replace("\n", "\r\n")
    shuffled = dict(reversed(event().items()))
    return [
        Case(
            "a typical event",
            line(data={"pct": 30, "attempt": 1, "hmac_kid": 1}, seq=7),
            "accepted",
            missing=(1, 6),
            canonical='{"data":{"attempt":1,"hmac_kid":1,"pct":30},"detail":"step 3 of 10","event":"progress",'
            '"job_id":"abc12345","schema_version":1,"seq":7,"timestamp":"2026-06-19T09:32:00Z"}',
        ),
        Case("data empty but for the signature", line(data={}), "accepted", "unclaimed"),
        Case("no hmac_kid means key 1", line(data={"attempt": 1}), "accepted"),
        Case("fields in another order", text(shuffled), "accepted"),
        Case("blanks and line breaks between tokens", pretty, "accepted"),
        Case("detail empty", line(detail=""), "accepted"),
        Case(
            "detail in several scripts",
            line(detail="Gr\u00fc\u00dfe \u4f60\u597d \u05e9\u05dc\u05d5\u05dd"),
            "accepted",
        ),
        Case("beyond the BMP, as itself", line(detail="done \U0001f389"), "accepted"),
        Case(
            "beyond the BMP, as an escaped surrogate pair",
            json.dumps(event(detail="done \U0001f389")),
            "accepted",
        ),
        Case("keys sort by UTF-16 code units", with_data(astral), "accepted"),
        Case("the keys of RFC 8785, section 3.2.3", with_data(rfc_keys), "accepted"),
        Case("digits are keys like others", with_data('"10":1,"9":2,"1":3,"01":4'), "accepted"),
        Case("the name __proto__ is a key like others", with_data('"__proto__":{"a":1},"constructor":2'), "accepted"),
        Case("control characters", with_data(f'"c":{controls}'), "accepted"),
        Case("the two-character escapes", with_data(r'"e":"\" \\ \/ \b \f \n \r \t"'), "accepted"),
        Case("escapes that need none", with_data(r'"\u0061":"\u0062\u007f\u2028\u00e9\u002F"'), "accepted"),
        Case("DEL and line separator as themselves", with_data('"x":"\x7f\u2028\u2029"'), "accepted"),
        Case("NUL in data", with_data(r'"x":"a\u0000b"'), "accepted"),
        Case("composed and decomposed stay two keys", with_data('"\u00e9":1,"e\u0301":2'), "accepted"),
        Case("nested data", with_data('"b":[1,{"z":[],"a":{"y":null,"x":[true,false]}},[[]]],"a":{}'), "accepted"),
        Case("64 levels deep", with_data(depth_64), "accepted"),
        Case("largest and smallest integer", with_data('"n":[9007199254740991,-9007199254740991]'), "accepted"),
        Case("minus zero, as integer and as double", with_data('"n":[-0,-0.0,0.0,-0e5]'), "accepted"),
        Case("one number in five forms", with_data('"n":[100,100.0,1e2,1E+2,10.0e1]'), "accepted"),
        Case("doubles, after RFC 8785, appendix B", with_data(f'"n":[{numbers}]'), "accepted"),
        Case("doubles that need rounding", with_data('"n":[0.1,0.30000000000000004,1.00000000000000005]'), "accepted"),
        Case("underflow is zero", with_data('"n":[1e-400,-1e-400]'), "accepted"),
        Case(
            "a field that version 1 does not know is signed", with_data("", more=',"extra":{"b":1,"a":2}'), "accepted"
        ),
        Case("hmac_sig elsewhere is signed", with_data('"x":{"hmac_sig":"a"}', more=',"hmac_sig":"b"'), "accepted"),
        Case("a fraction of a second", line(timestamp="2026-06-19T09:32:00.123456Z"), "accepted"),
        Case("a time zone", line(timestamp="2026-06-19T11:32:00+02:00"), "accepted"),
        Case("null in a field that version 1 does not know", with_data("", more=',"extra":null'), "accepted"),
        Case("a leap second", line(timestamp="2016-12-31T23:59:60Z"), "accepted"),
        Case("a second 60 in any minute", line(timestamp="2026-06-19T09:32:60Z"), "accepted"),
        Case("a day that its month does not have", line(timestamp="2026-02-30T09:32:00Z"), "accepted"),
        Case("the year 0", line(timestamp="0000-01-01T00:00:00Z"), "accepted"),
        Case("nine digits of a second", line(timestamp="2026-06-19T09:32:00.123456789Z"), "accepted"),
        Case("the largest offset", line(timestamp="2026-06-19T09:32:00+23:59"), "accepted"),
        Case("an offset that is not known", line(timestamp="2026-06-19T09:32:00-00:00"), "accepted"),
        Case("largest seq", line(seq=2**53 - 1), "accepted", missing=(1, 2**53 - 2)),
        Case("262144 bytes", event_of_size(262_144), "accepted"),
        Case("65536 characters of detail", [*repeated_char("detail", "\u00e9", 65_536)], "accepted"),
        Case("10000 values", event_of_values(10_000, 0), "accepted"),
        Case("10000 values, most of them empty", event_of_values(10_000, []), "accepted"),
        Case("commas and brackets in a text are no values", [*repeated_char("detail", "[,{,", 16_000)], "accepted"),
        Case("escaped quotation marks end no text", [*repeated_char("detail", '",[\\', 8_000)], "accepted"),
        Case("a token beyond ASCII", line(sign_with=WIDE_TOKEN), "accepted", "wide token"),
        Case("the second key", line(data={"hmac_kid": 2, "attempt": 1}, sign_with=SECOND_TOKEN), "accepted", "rotated"),
        Case("the first key within the overlap", line(), "accepted", "rotated"),
        Case("no token, no signature needed", line(sign_with=None, data={}), "accepted", "no token"),
        Case("no token, a signature means nothing", line(), "accepted", "no token"),
    ]


def malformed_cases() -> list[Case]:
    """Return cases that are not UTF-8 JSON (rule json) or violate the schema (rule schema)."""
    good = line().encode()
    detail = b'"detail":"'
    big = "1" + "0" * 5000
    texts = {
        "empty": "",
        "blanks only": " \n",
        "an array": "[" + line() + "]",
        "a string": '"started"',
        "null": "null",
        "cut short": line()[:-1],
        "cut in a string": line()[:90],
        "something after it": line() + "x",
        "two events in one message": line() + "\n" + line(),
        "a comma too many": line()[:-1] + ",}",
        "a comment": "/* */" + line(),
        "single quotes": line().replace('"', "'"),
        "byte order mark": "\ufeff" + line(),
        "no-break space between tokens": "\u00a0" + line(),
        "form feed between tokens": "\x0c" + line(),
        "True for true": with_data('"x":true').replace("true", "True"),
        "NaN": raw_data('"x":NaN'),
        "Infinity": raw_data('"x":Infinity'),
        "minus Infinity": raw_data('"x":-Infinity'),
        "a double that overflows": raw_data('"x":1e400'),
        "an integer of 2^53": raw_data('"x":9007199254740992'),
        "an integer of -2^53": raw_data('"x":-9007199254740992'),
        "an integer of 5001 digits": raw_data(f'"x":{big}'),
        "a leading zero": raw_data('"x":01'),
        "a plus sign": raw_data('"x":+1'),
        "no digit before the point": raw_data('"x":.5'),
        "no digit after the point": raw_data('"x":1.'),
        "no digit in the exponent": raw_data('"x":1e'),
        "hexadecimal": raw_data('"x":0x10'),
        "an underscore in a number": raw_data('"x":1_0'),
        "a field twice": line().replace('"seq":1,', '"seq":1,"seq":1,'),
        "a field twice, the second escaped": line().replace('"seq":1,', '"seq":1,"s\\u0065q":2,'),
        "a key of data twice": raw_data('"pct":1,"pct":2'),
        "a key twice far inside": raw_data('"x":[{"a":{"k":1,"k":1}}]'),
        "the signature twice": raw_data('"hmac_sig":"00"'),
        "high surrogate alone": raw("detail", r'"\ud83d"'),
        "low surrogate alone": raw("detail", r'"\ude00"'),
        "surrogates the wrong way round": raw("detail", r'"\ude00\ud83d"'),
        "a lone surrogate in a key": raw_data(r'"\ud800":1'),
        "a lone surrogate in a key, beside a double": raw_data(r'"\ud800":1.5'),
        "a lone surrogate in the signature": raw("data", r'{"hmac_sig":"\ud800"}'),
        "a raw line break in a string": raw("detail", '"a\nb"'),
        "a raw tab in a string": raw("detail", '"a\tb"'),
        "an unknown escape": raw("detail", r'"\x41"'),
        "an escape cut short": raw("detail", r'"\u12"'),
        "65 levels deep": raw_data('"x":' + "[" * 63 + "]" * 63),
    }
    large = {
        "262145 bytes": event_of_size(262_145),
        "262145 bytes, all but one of them blanks": [("{", 1), (" ", 262_144)],
        "10001 values": event_of_values(10_001, 0),
        "10001 values, most of them empty": event_of_values(10_001, {}),
        "100000 levels deep": [("[", 100_000), ("]", 100_000)],
        "100000 objects deep": [('{"a":', 40_000), ("1", 1), ("}", 40_000)],
    }
    byte_strings = {
        "a byte that is never UTF-8": good.replace(detail, detail + b"\xff"),
        "an overlong form": good.replace(detail, detail + b"\xc0\xaf"),
        "a surrogate in UTF-8": good.replace(detail, detail + b"\xed\xa0\x80"),
        "a sequence cut short": good.replace(detail, detail + b"\xe2\x82"),
        "beyond U+10FFFF": good.replace(detail, detail + b"\xf4\x90\x80\x80"),
        "UTF-16": line().encode("utf-16"),
        "a raw NUL": good.replace(detail, detail + b"\x00"),
    }
    cases = [Case(name, payload, "malformed", rule="json") for name, payload in texts.items()]
    cases += [Case(name, pieces, "malformed", rule="json") for name, pieces in large.items()]
    cases += [Case(name, payload, "malformed", rule="json") for name, payload in byte_strings.items()]
    names = ("schema_version", "seq", "job_id", "event", "timestamp", "detail", "data")
    cases += [Case(f"without {name}", without(name), "malformed", rule="schema") for name in names]
    fields: dict[str, dict[str, str]] = {
        "schema_version": {"text": '"1"', "true": "true", "null": "null"},
        "seq": {"0": "0", "negative": "-1", "text": '"1"', "true": "true", "null": "null", "a half": "1.5"},
        "job_id": {
            "a number": "12345",
            "null": "null",
            "empty": '""',
            "with a slash": '"../abc"',
            "of dots": '".."',
            "with a line break at its end": r'"abc12345\n"',
            "with a wildcard": '"abc#"',
            "beyond ASCII": '"\u0430bc12345"',
            "129 characters long": '"' + "a" * 129 + '"',
        },
        "event": {"capital": '"Progress"', "of no kind": '"cancelled"', "null": "null", "an array": '["progress"]'},
        "timestamp": {
            "a number": "1781861520",
            "without a zone": '"2026-06-19T09:32:00"',
            "of a 13th month": '"2026-13-19T09:32:00Z"',
            "of month 0": '"2026-00-19T09:32:00Z"',
            "of a 32nd day": '"2026-01-32T09:32:00Z"',
            "of day 0": '"2026-01-00T09:32:00Z"',
            "at 24:00": '"2026-06-19T24:00:00Z"',
            "at minute 60": '"2026-06-19T09:60:00Z"',
            "at second 61": '"2026-06-19T09:32:61Z"',
            "without seconds": '"2026-06-19T09:32Z"',
            "with a small t": '"2026-06-19t09:32:00Z"',
            "with a small z": '"2026-06-19T09:32:00z"',
            "with a blank for the T": '"2026-06-19 09:32:00Z"',
            "with ten digits of a second": '"2026-06-19T09:32:00.1234567890Z"',
            "with a comma before the fraction": '"2026-06-19T09:32:00,5Z"',
            "with a point and no fraction": '"2026-06-19T09:32:00.Z"',
            "with an offset of 24 hours": '"2026-06-19T09:32:00+24:00"',
            "with an offset of 60 minutes": '"2026-06-19T09:32:00+02:60"',
            "with an offset without a colon": '"2026-06-19T09:32:00+0200"',
            "with an offset of hours alone": '"2026-06-19T09:32:00+02"',
            "with other digits": '"\u0662\u0660\u0662\u0666-06-19T09:32:00Z"',
            "with a line break at its end": r'"2026-06-19T09:32:00Z\n"',
        },
        "detail": {"null": "null", "an object": "{}", "with NUL": r'"a\u0000b"'},
        "data": {"null": "null", "an array": "[]", "text": '"{}"'},
    }
    for name, values in fields.items():
        cases += [
            Case(f"{name} {what}", raw(name, value), "malformed", rule="schema") for what, value in values.items()
        ]
    cases.append(
        Case("detail of 65537 characters", [*repeated_char("detail", "x", 65_537)], "malformed", rule="schema")
    )
    members = {
        "hmac_sig": {"null": "null", "a number": "0", "an array": "[]"},
        "hmac_kid": {"0": "0", "null": "null", "text": '"1"', "true": "true", "2^31": "2147483648"},
        "attempt": {"0": "0", "null": "null", "text": '"1"', "true": "true", "negative": "-1"},
    }
    for name, values in members.items():
        cases += [
            Case(f"data.{name} {what}", raw("data", f'{{"{name}":{value}}}'), "malformed", rule="schema")
            for what, value in values.items()
        ]
    # Equal in value to an integer, and valid as one for JSON Schema; but it is not written as one.
    literals = {"schema_version": "1.0", "seq": "1.0", "seq ": "1e0"}
    cases += [
        Case(f"{name.strip()} as {value}", raw(name.strip(), value), "malformed", rule="literal")
        for name, value in literals.items()
    ]
    cases += [
        Case(f"data.{name} as 1.0", raw("data", f'{{"{name}":1.0}}'), "malformed", rule="literal")
        for name in ("attempt", "hmac_kid")
    ]
    return cases


def version_cases() -> list[Case]:
    return [
        Case("version 2", line(schema_version=2), "unsupported_version"),
        Case("version 0", line(schema_version=0), "unsupported_version"),
        Case("version -1", line(schema_version=-1), "unsupported_version"),
        Case("version 2 of another shape", '{"schema_version":2,"events":[]}', "unsupported_version"),
        Case("version 2 with a lone surrogate", r'{"schema_version":2,"x":"\ud800"}', "malformed", rule="json"),
        Case(
            "version 2 with a lone surrogate in the signature",
            r'{"schema_version":2,"data":{"hmac_sig":["\ud800"]}}',
            "malformed",
            rule="json",
        ),
        Case(
            "version 2 with infinity in the signature",
            '{"schema_version":2,"data":{"hmac_sig":{"x":1e400}}}',
            "malformed",
            rule="json",
        ),
        Case(
            "version 2, 65 levels deep in the signature",
            '{"schema_version":2,"data":{"hmac_sig":' + "[" * 63 + "]" * 63 + "}}",
            "malformed",
            rule="json",
        ),
        Case(
            "version 2, 64 levels deep in the signature",
            '{"schema_version":2,"data":{"hmac_sig":' + "[" * 62 + "]" * 62 + "}}",
            "unsupported_version",
        ),
        Case("version 2 of another job", line(schema_version=2, job_id="zzz"), "unsupported_version"),
    ]
