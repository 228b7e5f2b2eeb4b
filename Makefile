# What a user or CI runs. Needs one of Python 3.10 to 3.13, and no compiler, GPU or libGL.
# make PYTHON=python3.12 ... chooses; the default is python3.
PYTHON ?=
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
SCENES := data/digit_scenes/.digit_scenes.json

.PHONY: env data demo demo-scratch study regress zoo test test-slow test-hosts test-newest test-pythons lint mutants stress fuzz bench clean

env:
	@PYTHON=$(PYTHON) bash tools/setup_env.sh $(VENV)

data: env
	$(BIN)/python data/digit_scenes.py --out $(dir $(SCENES))

demo: env
	$(BIN)/python tools/demo.py

demo-scratch: env
	$(BIN)/python tools/demo.py --scratch

# Small networks of every kind, hours of two cores; goes on where it was ended. docs/study.md
study: $(SCENES)
	$(BIN)/python tools/study.py

# The study's first seed of every family with the code as it is, beside the results in configs/study.
# make regress FLAGS=--if-changed: unless that code was compared before
regress: $(SCENES)
	$(BIN)/python tools/study.py --regress $(FLAGS)

$(SCENES): | env
	$(BIN)/python data/digit_scenes.py --out $(dir $(SCENES))

zoo: env
	$(BIN)/python tools/model_zoo.py --measure

# Two workers of one thread each. CI runs both.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Largest networks, exporters, trainings of several processes.
test-slow: env
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# Under Python 3.10 to 3.13; an environment of 7 GB each. One alone: make test-pythons PYTHONS=3.12
test-pythons:
	@bash tests/pythons.sh build/pythons $(PYTHONS)

# The backbones in timm, torchvision, Transformers, Segmentation Models PyTorch; the page to explore models.
# make test-hosts ONLY=transformers
test-hosts: env
	@bash tests/hosts.sh build/hosts $(BIN)/python $(if $(ONLY),-k "$(ONLY)")

# Beside the newest torch, timm, transformers and numpy that pip finds.
test-newest:
	@PYTHON=$(PYTHON) bash tests/newest.sh build/newest

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# Small faults planted in files: make mutants FILES="engine/checks.py" MINUTES=20
mutants: env
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet \
		--constraint requirements.txt mutmut==3.8.1
	$(BIN)/python tests/mutants.py $(FILES) --minutes $(or $(MINUTES),20)

# Trainings that are killed, cut off from their disk, left by their launcher: make stress MINUTES=60
stress: env
	$(BIN)/python -W ignore tests/stress.py --minutes $(or $(MINUTES),5)

# Mutated checkpoints and pictures: make fuzz NUMBER=100000 for the long form
fuzz: env
	$(BIN)/python -W ignore tests/fuzz.py --number $(or $(NUMBER),1000)

# Speed and memory beside tests/bench.json, some minutes: make bench ROUNDS=9 or WRITE=--write
bench: env
	$(BIN)/python -W ignore tests/bench.py --rounds $(or $(ROUNDS),5) $(WRITE)

clean:
	rm -rf $(VENV) build .mim *.egg-info
