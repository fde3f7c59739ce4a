# make demo: the whole pipeline on rendered images, after one install, offline. make lint docs test: as .ci/run does.
# Another interpreter: make PYTHON=/path/to/python3.12 ...

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: bench demo demo-photographs demo-steps docs paper paper-status test chaos lint format lock notices clean help

# The first of these that runs, is 3.11 or later and can make environments.
CANDIDATES := python3 python3.11 python3.12 python3.13 python
CHECK := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
FOUND := $(shell for p in $(CANDIDATES); do "$$p" -c '$(CHECK)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
PYTHON ?= $(FOUND)

VENV := .venv
RUN := $(VENV)/bin/python

# What the environment holds: on the Python and platform of requirements/dev.txt what is locked there, by hashes;
# elsewhere, and with make LOCKED=, the newest versions that pyproject.toml allows.
EXTRAS := dev,bench,docs,engines,export
LOCK_PYTHON := 3.11
LOCKED := requirements/dev.txt
LOCKS := from platform import *; import sys; \
  sys.exit((python_version()[:4], system(), machine()) != ("$(LOCK_PYTHON)", "Linux", "x86_64"))
PIP := $(RUN) -m pip install --progress-bar off --disable-pip-version-check
# What pip says, as one line that moves on a terminal, or a line every 25 packages in a log. Its errors are on stderr.
SHOW_PIP := awk -v total="$$total" -v moves="$$([ -t 2 ] && echo 1)" ' \
  function show(text) { if (moves) printf "\r\033[K   %s", text; else print "   " text; fflush() } \
  /^Collecting / { if (++n % 25 == 1 || moves) show("package " n total ": " $$2) } \
  /^Installing collected/ { show(n " packages are here; to unpack them takes a minute or two") } \
  END { if (moves) print "" }'
DEMO := runs/demo
PHOTOGRAPHS := $(addprefix $(DEMO)/photographs/,chelsea.png coffee.png astronaut.png rocket.jpg motorcycle_left.png)
TEACHER := onnx:$(DEMO)/teacher/model.onnx
# The demo's maps: folder, method, options.
define MAPS
mal_grad_cam    mal_grad_cam --student $(DEMO)/student
ml_grad_cam     ml_grad_cam --student $(DEMO)/student
matt            matt --student $(DEMO)/student
grad_cam        grad_cam --student $(DEMO)/student
readout         readout --student $(DEMO)/student
gp_50           gp_regression --num-samples 50
gp_200          gp_regression --num-samples 200
lime            lime --num-samples 200
rise            rise --num-masks 1000
random          random
centre_gaussian centre_gaussian
endef
export MAPS
MAP_FOLDERS = $$(awk '{ print "$(DEMO)/maps/" $$1 }' <<< "$$MAPS")

# make paper DATASET=cars_40 DATA=../shared/data OPTIONS="--num-masks 2000"; `python -m benchmarks.paper --help` lists both.
DATASET := all
DATA := ../shared/data
OPTIONS :=
BENCH :=
PAPER := $(RUN) -m benchmarks.paper $(DATASET) --data $(DATA) $(OPTIONS)

help:
	@echo "make demo    render images, train a black box, distil, explain, score and report (about five minutes, 2 cores)"
	@echo "make paper DATASET=NAME DATA=DIR   the paper's experiments on a data set, or go on with them; paper-status says how far"
	@echo "make bench   measure speeds against peers and the raw engine: results/benchmarks.md (half an hour, 2 quiet cores)"
	@echo "make test    run the tests"
	@echo "make chaos   run the tests that take longer: faults in the middle of jobs"
	@echo "make lint    check format, lint and types"
	@echo "make docs    build the documentation: site/index.html, with search and a reference of all modules"
	@echo "make format  format the code"
	@echo "make lock    lock anew what the environment and the image install; make notices: their licenses"
	@echo "make clean   remove caches and the demo's results; the environment and other runs stay"

$(VENV)/.installed: pyproject.toml $(LOCKED)
	@if ! "$(PYTHON)" -c '$(CHECK)' 2>/dev/null; then \
	  echo "error: '$(PYTHON)' is no Python 3.11 or later with venv and pip; looked for: $(CANDIDATES)." >&2; \
	  echo "Install one (Debian and Ubuntu: apt-get install python3.11 python3.11-venv), or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi
	@echo "== environment in $(VENV), made with $$("$(PYTHON)" --version): minutes, once, several gigabytes"
	@"$(PYTHON)" -m venv $(VENV)
	@if [ -n "$(LOCKED)" ] && $(RUN) -c '$(LOCKS)'; then \
	  total=" of $$(grep -c == $(LOCKED))"; \
	  $(PIP) --require-hashes -r $(LOCKED) | $(SHOW_PIP); \
	  $(PIP) --quiet --no-deps --no-build-isolation -e .; \
	else \
	  total=; \
	  $(PIP) -e ".[$(EXTRAS)]" | $(SHOW_PIP); \
	fi
	@touch $@
	@echo "== installed: malgradcam and $$($(RUN) -m pip list --disable-pip-version-check | wc -l) packages," \
	  "$$(du -sh $(VENV) | cut -f1) in $(VENV). Next: make demo, or $(VENV)/bin/malgradcam --help"

# Act one, a minute: five photographs and a real ImageNet classifier. Act two: the whole pipeline on rendered images.
demo: $(VENV)/.installed
	@$(MAKE) --no-print-directory demo-photographs
	@$(RUN) -m cluster run -- $(MAKE) --no-print-directory demo-steps

demo-photographs: $(VENV)/.installed
	@echo "== Act one: what does EfficientNet-Lite0 look at in five photographs? 200 queries each"
	@$(RUN) -m distill.demo.photographs --out $(DEMO)/photographs > /dev/null
	@$(RUN) -m distill.teachers.lite $(DEMO)/lite0 > /dev/null
	@$(RUN) -m explain image $(PHOTOGRAPHS) --teacher onnx:$(DEMO)/lite0/model.onnx --queries 200 --out $(DEMO)/pictures
	@echo "Open the pictures above. Next, act two: the whole pipeline on rendered images, between four and five minutes."
	@echo

# Under one Ray for all of them: starting one takes some seconds each time.
demo-steps:
	@echo "== 1/6 images with known object masks, and a black box that is trained on them"
	@$(RUN) -m distill.demo --out $(DEMO)
	@echo "== 2/6 distil the black box into a student"
	@if [ -f $(DEMO)/student/student.json ]; then \
	  echo "student: $(DEMO)/student is finished"; \
	else \
	  $(RUN) -m distill demo --data $(DEMO)/data --teacher $(TEACHER) --out $(DEMO)/student --resume; \
	fi
	@echo "== 3/6 explain the held-out images with every family of methods; 64 queries for each of 160 training images teach"
	@echo "       the read-out, which needs none afterwards"
	@$(RUN) -m explain gp_regression --data $(DEMO)/data --split train --per-class 20 --num-samples 64 --map-cells 28 \
	  --teacher $(TEACHER) --out $(DEMO)/maps_of_training
	@$(RUN) -m explain fit --student $(DEMO)/student --maps $(DEMO)/maps_of_training --data $(DEMO)/data
	@while read -r name method; do \
	  $(RUN) -m explain $$method --data $(DEMO)/data --teacher $(TEACHER) --out $(DEMO)/maps/$$name | grep -v '^next: '; \
	done <<< "$$MAPS"
	@echo "== 4/6 play insertion and deletion on the black box"
	@$(RUN) -m evaluate games --maps $(MAP_FOLDERS) --data $(DEMO)/data --teacher $(TEACHER) --out $(DEMO)/scores --step-px 512
	@echo "== 5/6 compare student and black box, and the maps with the object masks"
	@$(RUN) -m evaluate similarity --student $(DEMO)/student --teacher $(TEACHER) --data $(DEMO)/data
	@$(RUN) -m evaluate measures --measures pointing energy fidelity --maps $(MAP_FOLDERS) --data $(DEMO)/data --teacher $(TEACHER) --student $(DEMO)/student --out $(DEMO)/measures --num-masks 8 --num-points 3
	@echo "== 6/6 report"
	@$(RUN) -m evaluate report --scores $(DEMO)/scores --measures $(DEMO)/measures --out $(DEMO)/report.html --table $(DEMO)/report.md
	@echo
	@echo "Where to look:"
	@echo "  $(DEMO)/report.html          methods, curves, gallery, agreement, commands: open it in a browser"
	@echo "  $(DEMO)/maps, scores, measures: Parquet, for pyarrow, pandas or DuckDB"
	@echo "  $(VENV)/bin/python -m cluster ui    MLflow: charts and pictures of all methods, at the address that it prints,"
	@echo "                               http://127.0.0.1:5000/#/experiments/ID/runs?compareRunsMode=CHART"

paper: $(VENV)/.installed
	@$(RUN) -m cluster run -- $(PAPER)

paper-status: $(VENV)/.installed
	@$(PAPER) --status

# make bench BENCH="--only games jobs"; `python -m benchmarks.speed --help` lists the options.
bench: $(VENV)/.installed
	@$(RUN) -m benchmarks.speed $(BENCH)

# Side by side, as tests wait for Ray most of their time; a file's tests share what it has made, and files keep their order.
# A process that dies ends the run, with the name of its test: with another in its place the run could wait for ever.
test: $(VENV)/.installed
	@$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

chaos: $(VENV)/.installed
	@$(RUN) -m pytest -m chaos

lint: $(VENV)/.installed
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m pyright

# Strict: a broken link, or a docstring that does not fit its function, ends it. Nothing is fetched.
docs: $(VENV)/.installed
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "site/index.html is built; with search: $(RUN) -m http.server --bind 127.0.0.1 --directory site"

format: $(VENV)/.installed
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

# Locks anew what pyproject.toml asks for: versions stay where they may; make lock UPGRADE="--upgrade-package NAME", or
# UPGRADE=--upgrade, takes newer ones. uv is in an environment of its own, with what the notices need.
UV := build/lock/bin/uv
UPGRADE :=
COMPILE = $(UV) pip compile pyproject.toml --quiet --no-header --generate-hashes --python-version $(LOCK_PYTHON) \
  --python-platform x86_64-manylinux_2_28
IMAGE = $(COMPILE) --extra engines --only-binary :all: --constraints requirements/dev.txt
comma := ,
HEAD := From make lock, for CPython $(LOCK_PYTHON), Linux x86_64: hashes of the package index, torch in its CUDA build.

$(UV):
	@"$(PYTHON)" -m venv build/lock
	@build/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 pip-licenses==5.5.5

lock: $(UV)
	@$(COMPILE) $(patsubst %,--extra %,$(subst $(comma), ,$(EXTRAS))) $(UPGRADE) --output-file requirements/dev.txt
	@$(IMAGE) --output-file requirements/image.txt
	@$(IMAGE) requirements/gpu.in --no-emit-package onnxruntime --output-file requirements/image-gpu.txt
	@sed -i '1i # $(HEAD)' requirements/*.txt

# Names, licenses and versions of what the image installs, as this environment has them.
notices: $(UV) $(VENV)/.installed
	@{ cat requirements/notices.md; build/lock/bin/pip-licenses --python $(RUN) --with-system --format markdown \
	  --packages $$(sed -n 's/^\([a-z0-9._-]*\)==.*/\1/p' requirements/image.txt); } > THIRD_PARTY_NOTICES.md

clean:
	rm -rf .pytest_cache .ruff_cache build dist site *.egg-info $(DEMO)
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
