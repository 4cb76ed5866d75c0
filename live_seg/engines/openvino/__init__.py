"""A network converted to OpenVINO: faster than Keras on CPUs."""

import sys
from typing import Any, cast

# OpenVINO and NNCF report their use to their maker as soon as they are imported, unless this package is
# missing. Nothing leaves the machine unasked.
cast(dict[str, Any], sys.modules)["openvino_telemetry"] = None
