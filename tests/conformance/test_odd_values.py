"""Test numbers and strings at the limits of the protocol: accepted, shown by the views, and returned unchanged."""

import json

ODD_NUMBERS = [
    "1e-20000", "1e-100000", "-1e-400", "0e999999", "0.0e-999999", "1e308", "4.9e-324", "-0", "-0.0", "1E+2",
    "9007199254740991", "0." + "1" * 20_000, "1" * 300 + ".5", "0." + "0" * 60_000 + "1", "1" + "0" * 200 + "e-200",
    '"\\u0000"', '"\\\\u0000\\u0000"', '"\\ud83d\\ude00"', '{"\\u0000":[1e-20000]}',
    "[]", "{}", "null", " [ 1e-99999 ] ",
]  # fmt: skip


def test_every_accepted_value_can_be_read(database):
    """Read every number that the protocol allows: from the view, from the events, and from a copy of the registry."""
    with database.open() as registry:
        registry.register(agent="codex", prompt="", job_id="j", auth="never")
        for seq, literal in enumerate(ODD_NUMBERS, 1):
            raw = (
                f'{{"schema_version":1,"seq":{seq},"job_id":"j","event":"progress","timestamp":"2026-06-19T09:32:00Z",'
                f'"detail":"","data":{{"hmac_kid":1,"n":{literal},"hmac_sig":"00"}}}}'
            )
            assert registry.accept(raw, subscriber="s").verdict == "accepted", literal[:40]
        question = "SELECT seq, data, timestamp, detail FROM v_events ORDER BY seq"
        rows = registry.engine.store.query(question, limit=100, timeout_sec=20)[1]
        assert [row[0] for row in rows] == list(range(1, len(ODD_NUMBERS) + 1))
        events = registry.events("j", limit=100)
        for (seq, shown, _, _), literal in zip(rows, ODD_NUMBERS, strict=True):
            expected = literal if database.name != "postgresql" else literal.replace("\\u0000", "\\ufffd", 1)
            if literal != '"\\\\u0000\\u0000"':
                assert json.loads(shown) == {"n": json.loads(expected)}, literal[:40]
            assert events[seq - 1].data["n"] == json.loads(literal)
