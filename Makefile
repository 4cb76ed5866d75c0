PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo test test-all test-jax lint docs clean

demo: $(READY)
	$(BIN)/live-seg demo -o demo.mp4 --overwrite

# Without compiled modules, each of the many program starts in the tests would compile the package again.
test test-all: export PYTHONDONTWRITEBYTECODE =

# The tests are distributed to two processes, each of which loads TensorFlow. WORKERS=0: to none.
test: $(READY)
	$(PYTEST)

test-all: $(READY)
	$(PYTEST) -m '' --cov

# Without fused multiply-add, which rounds differently from TensorFlow where a box ends at the edge of the image.
test-jax: $(READY)
	KERAS_BACKEND=jax XLA_FLAGS=--xla_cpu_max_isa=AVX $(BIN)/pytest -k 'not openvino' \
		tests/test_boxes.py tests/test_ops.py tests/test_model.py tests/test_parity.py \
		tests/test_parity_torchvision.py

lint: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for system in linux win32 darwin; do \
		$(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system || exit; \
	done

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Without its last step, an earlier try has failed, perhaps with a Python that is too old: start anew.
$(READY): pyproject.toml constraints.txt
	test -e $@ || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) site .coverage demo.mp4
