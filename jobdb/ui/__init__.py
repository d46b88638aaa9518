"""The web view: Datasette on the stable views, read-only, reachable from this machine only.

Called by ``jobdb ui``, in a separate process that does not otherwise open the database: Datasette uses the standard
library's SQLite, and two SQLite libraries on one file in one process would release each other's locks. Needs the extra
``jobdb[ui]``.
"""

from .server import SiteAddress, serve

__all__ = ["SiteAddress", "serve"]
