"""How to start a child process that Ctrl-C in a terminal does not interrupt."""

import subprocess
import sys
from typing import Any

OWN_GROUP: dict[str, Any]
"""Arguments of `subprocess.Popen` with which a terminal sends Ctrl-C to this program but not to the child."""

if sys.platform == "win32":
    OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    OWN_GROUP = {"start_new_session": True}
