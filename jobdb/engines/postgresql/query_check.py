"""The check of an ad-hoc query on PostgreSQL: it may read views and tables without secrets, and call pure functions.

A server has functions that run SQL given as text (``query_to_xml``, ``ts_stat``), and that read tables by name
(``table_to_xml``), files (``pg_read_file``), large objects and settings. Searching the text for their names would miss
names that are quoted or aliased, and operators. So the server parses the query, as a temporary view, and the object
identifiers of every relation and every function are read from the view's rule. Only those on the lists below are
allowed. A role that may read only the views is the stronger protection: docs/deployment.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jobdb.schema import SEALED_COLUMNS, VIEWS

from ...errors import InvalidInput, Unusable
from .dialect import DIALECT, FORMS

if TYPE_CHECKING:
    from .connections import Connection

SECRET_TABLES = frozenset(table for table, _column in SEALED_COLUMNS)
READABLE_TABLES = frozenset(
    {
        "jobs",
        "events",
        "outbox",
        "subscriptions",
        "gaps",
        "verdict_counts",
        "refusals",
        "workers",
        "attempts",
        "questions",
    }
)

# Built-in functions that are marked immutable depend on their arguments alone and are allowed. These others depend on
# the clock, the time zone, the text search configuration or a type's output format, and read no table:
ALLOWED_FUNCTIONS = frozenset(
    """
    age array_to_json array_to_string clock_timestamp concat concat_ws convert convert_from convert_to current_database
    current_schema current_user date date_part date_trunc extract format gen_random_uuid generate_series in_range
    json_agg json_agg_strict json_array json_build_array json_build_object json_object_agg json_object_agg_strict
    json_object_agg_unique json_object_agg_unique_strict json_populate_record json_populate_recordset json_to_record
    json_to_recordset jsonb_agg jsonb_agg_strict jsonb_build_array jsonb_build_object jsonb_object_agg
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict jsonb_path_exists_tz
    jsonb_path_match_tz jsonb_path_query_array_tz jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
    jsonb_populate_recordset jsonb_to_record jsonb_to_recordset length make_timestamptz now numeric overlaps
    phraseto_tsquery pg_typeof plainto_tsquery quote_literal quote_nullable random row_to_json session_user
    statement_timestamp time timeofday timestamp timestamptz timetz timezone to_char to_date to_json to_jsonb to_number
    to_timestamp to_tsquery to_tsvector transaction_timestamp ts_headline version websearch_to_tsquery
    """.split()  # noqa: SIM905
)

_OID_FIELD = re.compile(
    r" :(relid|funcid|aggfnoid|winfnoid|tsmhandler|opfuncid|hashfuncid|negfuncid|startInRangeFunc|endInRangeFunc) (\d+)"
)
_OPERATOR_FIELDS = frozenset({"opfuncid", "hashfuncid", "negfuncid", "startInRangeFunc", "endInRangeFunc"})

# The view also calls a known function and reads a known view: finding them shows that the rule was parsed correctly.
_CANARY_FUNCTION, _CANARY_VIEW = "concat", VIEWS[0]
_VIEW = "CREATE TEMPORARY VIEW jobdb_query AS SELECT EXISTS (\n{}\n) AS answer, concat('jobdb') AS mark FROM v_jobs"


def check_query(connection: Connection, query: str) -> None:
    """Have the server parse a query, and refuse relations and functions that are not allowed; nothing of it is run.

    Args:
        connection: in a transaction that will be rolled back.
        query: the query, without its last semicolon.

    Raises:
        InvalidInput: it reads or calls something that is not on the lists.
        psycopg.Error: it is not a single SELECT.
    """
    # With a list of parameters, even an empty one, the server accepts a single statement only.
    connection.execute(_VIEW.format(query).replace("%", "%%").encode(), [])
    row = connection.execute(FORMS[DIALECT.query_rule].text).fetchone()
    references = _OID_FIELD.findall(row[0]) if row is not None else []

    def oids(*kinds: str) -> dict[str, list[str]]:
        return {"numbers": sorted({number for kind, number in references if kind in kinds and number != "0"})}

    relations = connection.execute(FORMS[DIALECT.query_relations].text, oids("relid")).fetchall()
    functions = connection.execute(
        FORMS[DIALECT.query_functions].text, oids("funcid", "aggfnoid", "winfnoid", "tsmhandler")
    ).fetchall()
    operators = connection.execute(FORMS[DIALECT.query_functions].text, oids(*_OPERATOR_FIELDS)).fetchall()
    if (_CANARY_VIEW, True) not in relations or (_CANARY_FUNCTION, True, "s") not in functions:
        raise Unusable(
            "this release of PostgreSQL stores queries in a form that jobdb does not know, so jobdb cannot tell what a "
            "query reads; use psql, with a role that may read only the views"
        )
    for name, in_registry in relations:
        if in_registry and name in SECRET_TABLES:
            raise InvalidInput(
                f"table {name} holds sealed secrets, which are not shown; use one SELECT on {', '.join(VIEWS)}"
            )
        if not (in_registry and (name in VIEWS or name in READABLE_TABLES)):
            raise InvalidInput(f"{name} is not a view of the registry; use one SELECT on {', '.join(VIEWS)}")
    for name, built_in, volatility in functions:
        if not built_in or (volatility != "i" and name not in ALLOWED_FUNCTIONS):
            raise InvalidInput(
                f"function {name} may access more than its arguments and is not run; use functions that only compute"
            )
    for name, built_in, volatility in operators:
        if not built_in or volatility == "v":
            raise InvalidInput(f"an operator calls function {name}, which is not built in; use built-in operators")
