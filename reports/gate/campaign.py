"""`reports.gate.validation` by the name that it had before: for one more version.

>>> from reports.gate.campaign import lines  # reports.gate.validation.lines, with a warning
"""

from __future__ import annotations

import sys
import warnings

from benchmarks.moved import DEPRECATED, Moved

OLD, NEW = "reports.gate.campaign", "reports.gate.validation"
RENAMED = {f"{OLD}.neighbour": f"{NEW}.background_load", f"{OLD}.rivals": f"{NEW}.peers"}
is_command = __name__ == "__main__"

# A command's own warning is shown, as is that of who imports it.
warnings.warn(
    DEPRECATED.format(old=OLD, new=NEW), DeprecationWarning, stacklevel=1 if is_command else 2
)

if is_command:
    from reports.gate.validation.__main__ import main

    sys.exit(main())

__path__: list[str] = []  # of a package, so that its modules can be imported
# Before other finders: they would load modules in the folders of the new package a second time.
sys.meta_path.insert(0, Moved({OLD: NEW, **RENAMED}))
