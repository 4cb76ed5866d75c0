"""The engine for OpenVINO, which is faster than Keras on CPUs."""

import sys
from typing import Any, cast

# OpenVINO and NNCF send usage statistics on import, without asking, unless this package is missing. This is
# the one place where the library changes the state of the process.
cast(dict[str, Any], sys.modules)["openvino_telemetry"] = None
