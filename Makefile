# Two commands do all the set-up: `make demo` and `make test`. Nothing here needs root or a compiler.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH := .venv-bench
PIP_FLAGS := --quiet --disable-pip-version-check --only-binary :all: -c constraints.txt

# The suite starts many processes: without bytecode on disk each of them would compile geoframe anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs plain test test-slow lint format bench bench-env gallery clean

demo: $(INSTALLED)  ## match two animals of meshes/ from their landmarks, write out/demo/
	$(BIN)/geoframe match meshes/dog.obj meshes/horse.obj --landmarks meshes --out out/demo
	@echo "look at out/demo/match.png, and open out/demo/report.html in a browser"

test: $(INSTALLED)  ## the default suite: mathematics, command line, report, house rules, ruff and mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
	$(MAKE) docs

docs: $(INSTALLED)  ## the site, into out/docs; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -q docs out/docs

plain:  ## what the README shows works after its install line, in an environment without extras
	rm -rf out/plain
	$(PYTHON) -m venv out/plain
	out/plain/bin/pip install $(PIP_FLAGS) .
	cd out && plain/bin/geoframe match ../meshes/dog.obj ../meshes/horse.obj --landmarks ../meshes --k 30 --out plain-match
	cd out && plain/bin/geoframe canonical ../meshes/cat.obj --vertices 1000 --out plain-canonical
	cd out && plain/bin/geoframe keypoints train --data procedural --category chair --limit 8 --epochs 1 --out plain-chair

test-slow: $(INSTALLED)  ## what takes minutes
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)  ## the linters alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gallery: $(INSTALLED)  ## the README's picture
	$(BIN)/python -m experiments.gallery.readme

bench: bench-env  ## ours beside pyFM, in an environment of its own (needs the data of GEOFRAME_DATA)
	$(BENCH)/bin/python -m experiments.bench.eigenbasis --json out/bench/eigenbasis.json
	$(BENCH)/bin/python -m experiments.bench.zoomout --json out/bench/zoomout.json
	$(BENCH)/bin/python -m experiments.bench.match --json out/bench/match.json

bench-env: $(BENCH)/.installed

# A stamp file makes the second run instant; a changed pyproject.toml or constraints.txt installs again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing geoframe into $(VENV) and compiling its loops (two to five minutes the first time)"
	$(BIN)/pip install $(PIP_FLAGS) -e '.[dev]'
	$(BIN)/geoframe compile
	@touch $@

$(BENCH)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install $(PIP_FLAGS) -e '.[dev]' pyfmaps
	@touch $@

clean:
	rm -rf out build .pytest_cache .ruff_cache .mypy_cache
